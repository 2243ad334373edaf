"""Delta tables of any kind, and streams that read them."""

from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession


class Lake:
    """A folder with tables and one checkpoint."""

    def __init__(self, spark: SparkSession, folder: Path) -> None:
        self.spark = spark
        self.folder = folder

    def create(self, name: str, features: str = "") -> str:
        """Create a table with an id and a day, at version 3 with two rows a commit, and return its path."""
        path = f"{self.folder}/{name}"
        self.spark.sql(f"CREATE TABLE delta.`{path}` (id LONG, day INT) USING delta {features}")
        for day in range(3):
            self.spark.sql(f"INSERT INTO delta.`{path}` VALUES ({2 * day}, {day}), ({2 * day + 1}, {day})")
        return path

    def stream(self, *paths: str, **options: str) -> Any:
        """Read what is new in these tables in one query, and return its last progress."""
        tables = [self.spark.readStream.format("delta").options(**options).load(path) for path in paths]
        stream = tables[0]
        for table in tables[1:]:
            stream = stream.union(table)
        writer = stream.writeStream.foreachBatch(lambda rows, batch: None).trigger(availableNow=True)
        query = writer.option("checkpointLocation", f"{self.folder}/checkpoint").start()
        query.awaitTermination()
        return query.lastProgress
