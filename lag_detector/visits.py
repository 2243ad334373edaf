"""The visits table of the tutorial: its columns and rows, and how it is shown, opened and started over."""

import sys
from pathlib import Path
from typing import Any

from lag_detector.errors import READ_ONLY, START_OVER, LagDetectorError
from lag_detector.places import checkpoints, table_location, warehouse

from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructType

TABLE = "default.visits"
ALL_ROWS = 1_000_000
COLUMNS = (
    StructType()
    .add("visit_id", "string", nullable=False)
    .add("event_time", "timestamp", nullable=False)
    .add("user_id", "string", nullable=False)
    .add("page", "string", nullable=False)
)


def rows(commit: int) -> str:
    """Give the three rows of a commit, as SQL, in the order of `COLUMNS`.

    Args:
        commit: 0, 1 or 2; it ends the visit's id.
    """
    return f"""
        ('visit 1-{commit}', TIMESTAMP '2024-07-01 12:00:00.840Z', 'user 1', 'index.html'),
        ('visit 2-{commit}', TIMESTAMP '2024-07-01 14:00:00.840Z', 'user 2', 'contact.html'),
        ('visit 3-{commit}', TIMESTAMP '2024-07-01 15:00:00.840Z', 'user 3', 'about.html')
    """


def show(visits: DataFrame) -> None:
    """Print visits ordered by their id, all of them and untruncated."""
    visits.orderBy("visit_id").show(ALL_ROWS, truncate=False)
    sys.stdout.flush()  # before the stream notes them as read: a script that is killed must not keep them to itself


def open_table(spark: SparkSession) -> None:
    """Make the table known to the session by its name; the in-memory catalog starts empty.

    Raises:
        LagDetectorError: there is no table yet, or a commit of it was cut off.
    """
    # The first commit says so at once, Delta a third of a second later; old commits may have been cleaned up.
    first_commit = _Place(spark, f"{table_location()}/_delta_log/{0:020d}.json")
    if not (first_commit.exists() or DeltaTable.isDeltaTable(spark, table_location())):
        raise LagDetectorError(f"there is no table {TABLE} in {warehouse()} yet; run python create_table.py first")
    _check_commits()
    DeltaTable.createIfNotExists(spark).tableName(TABLE).location(table_location()).execute()


def _check_commits() -> None:
    """Refuse a log with an empty file, as a power failure leaves it: Delta takes it for a commit without rows.

    Looks at local disks only; the other file systems write a file whole or not at all.
    """
    log = Path(table_location().removeprefix("file:"), "_delta_log")
    for file in log.glob("*.json"):
        if not file.stat().st_size:
            raise LagDetectorError(f"{file} is empty, its rows are unknown; put it back from a copy, or {START_OVER}")


def start_over(spark: SparkSession) -> None:
    """Delete the table and the checkpoints of its consumers, which are of no use to another table.

    Raises:
        LagDetectorError: what is in the table's place is no Delta table; it stays as it is.
    """
    table, log = _Place(spark, table_location()), _Place(spark, f"{table_location()}/_delta_log")
    if table.exists() and not (table.is_empty() or log.exists()):
        raise LagDetectorError(
            f"{table_location()} holds something that is no Delta table; "
            "move it away or set VISITS_WAREHOUSE to another folder"
        )
    _Place(spark, checkpoints()).delete()
    table.delete(last=log)  # cut off in between, it is still known as a table when the script runs again


class _Place:
    """A file or folder of the warehouse, through Hadoop's file system: local disk and object store alike."""

    def __init__(self, spark: SparkSession, location: str) -> None:
        jvm: Any = spark.sparkContext._jvm
        self.path = jvm.org.apache.hadoop.fs.Path(location)
        self.files = self.path.getFileSystem(spark._jsparkSession.sessionState().newHadoopConf())

    def exists(self) -> bool:
        return bool(self.files.exists(self.path))

    def is_empty(self) -> bool:
        return self.files.getFileStatus(self.path).isDirectory() and not self.files.listStatus(self.path)

    def delete(self, last: "_Place | None" = None) -> None:
        if last and self.exists():
            for child in self.files.listStatus(self.path):
                if child.getPath().getName() != last.path.getName():
                    self.files.delete(child.getPath(), True)
        self.files.delete(self.path, True)
        if self.exists():  # Hadoop does not say so
            raise LagDetectorError(READ_ONLY)
