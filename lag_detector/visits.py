"""The visits table of the tutorial: its columns, its rows, and where it lives."""

import os
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructType

from lag_detector.errors import LagDetectorError

TABLE = "default.visits"
ALL_ROWS = 1_000_000
COLUMNS = (
    StructType()
    .add("visit_id", "string", nullable=False)
    .add("event_time", "timestamp", nullable=False)
    .add("user_id", "string", nullable=False)
    .add("page", "string", nullable=False)
)


def warehouse() -> str:
    """Tell where the table and the consumer's checkpoint live.

    Returns:
        `VISITS_WAREHOUSE`, a Hadoop URI as it stands or a folder as an absolute path;
        without it the folder `warehouse` beside the scripts, wherever they are started from.
    """
    setting = os.environ.get("VISITS_WAREHOUSE")
    if not setting:
        return str(Path(__file__).resolve().parents[1] / "warehouse")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", setting):
        return setting.rstrip("/")
    return str(Path(setting).expanduser().absolute())


def table_location() -> str:
    """Tell where the table lives."""
    return f"{warehouse()}/visits"


def checkpoint_location() -> str:
    """Tell where the consumer remembers what it has read."""
    return f"{warehouse()}/checkpoints/visits_consumer"


def rows(commit: int) -> list[tuple[str, datetime, str, str]]:
    """Make the three rows of a commit, in the order of `COLUMNS`.

    Args:
        commit: 0, 1 or 2; it ends the visit's id.
    """

    def at(hour: int) -> datetime:
        return datetime(2024, 7, 1, hour, 0, 0, 840_000, tzinfo=timezone.utc)

    return [
        (f"visit 1-{commit}", at(12), "user 1", "index.html"),
        (f"visit 2-{commit}", at(14), "user 2", "contact.html"),
        (f"visit 3-{commit}", at(15), "user 3", "about.html"),
    ]


def show(visits: DataFrame) -> None:
    """Print visits ordered by their id, all of them and untruncated."""
    visits.orderBy("visit_id").show(ALL_ROWS, truncate=False)


def open_table(spark: SparkSession) -> None:
    """Make the table known to the session by its name; the in-memory catalog starts empty.

    Raises:
        LagDetectorError: there is no table yet.
    """
    if not DeltaTable.isDeltaTable(spark, table_location()):
        raise LagDetectorError(f"there is no table {TABLE} in {warehouse()} yet; run python create_table.py first")
    DeltaTable.createIfNotExists(spark).tableName(TABLE).location(table_location()).execute()


def start_over(spark: SparkSession) -> None:
    """Delete the table and the checkpoints of its consumers, which are of no use to another table.

    Raises:
        LagDetectorError: what is in the table's place is no Delta table; it stays as it is.
    """
    table = _folder(spark, table_location())
    if table.exists() and not table.is_empty() and not DeltaTable.isDeltaTable(spark, table_location()):
        raise LagDetectorError(
            f"{table_location()} holds something that is no Delta table; "
            "move it away or set VISITS_WAREHOUSE to another folder"
        )
    _folder(spark, f"{warehouse()}/checkpoints").delete()
    table.delete()


class _folder:
    """A folder of the warehouse, through Hadoop's file system: local disk and object store alike."""

    def __init__(self, spark: SparkSession, location: str) -> None:
        jvm: Any = spark.sparkContext._jvm
        self.path = jvm.org.apache.hadoop.fs.Path(location)
        self.files = self.path.getFileSystem(spark._jsparkSession.sessionState().newHadoopConf())

    def exists(self) -> bool:
        return bool(self.files.exists(self.path))

    def is_empty(self) -> bool:
        return self.files.getFileStatus(self.path).isDirectory() and not self.files.listStatus(self.path)

    def delete(self) -> None:
        self.files.delete(self.path, True)
