"""Delta tables of any kind, and streams that read them."""

import shutil
from pathlib import Path

from pyspark.sql import SparkSession


class Lake:
    """A folder with tables and one checkpoint.

    Args:
        spark: a session with Delta Lake.
        folder: the folder.
        ready_made: a folder with tables to copy, which other lakes use too.
    """

    def __init__(self, spark: SparkSession, folder: Path, ready_made: Path) -> None:
        self.spark = spark
        self.folder = folder
        self.ready_made = ready_made
        self.created = 0

    def create(self, name: str, features: str = "") -> str:
        """Create a table with an id and a day, at version 3 with two rows a commit, and return its path."""
        self.created += 1  # so that each table of a lake has an id of its own
        original = self.ready_made / f"{self.created} {features}"
        if not original.exists():
            self.spark.sql(f"CREATE TABLE delta.`{original}` (id LONG, day INT) USING delta {features}")
            for day in range(3):
                self.spark.sql(f"INSERT INTO delta.`{original}` VALUES ({2 * day}, {day}), ({2 * day + 1}, {day})")
        # The session must not remember an earlier table of this name.
        self.spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()  # type: ignore[union-attr]
        return str(shutil.copytree(original, self.folder / name))
