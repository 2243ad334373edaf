"""The visits table: its name, its metrics, and how it is registered, printed and deleted."""

import sys
from pathlib import Path
from typing import Any

from tutorial.error_messages import READ_ONLY, START_OVER
from tutorial.settings import checkpoints_location, table_location, warehouse

from lag_detector.errors import LagDetectorError

from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession

TABLE = "default.visits"
WRITER_VERSION = "visits_writer_version"
READER_VERSION = "visits_reader_version"
ALL_ROWS = 1_000_000


def print_visits(visits: DataFrame, batch_id: int | None = None) -> None:
    """Print all visits ordered by their id, untruncated. As a `foreachBatch` function it also gets the batch's id."""
    visits.orderBy("visit_id").show(ALL_ROWS, truncate=False)
    sys.stdout.flush()  # before the stream commits them as read, so that a killed script has printed them


def register_table(spark: SparkSession) -> None:
    """Register the table in the session's catalog, which is in memory and starts empty.

    Raises:
        LagDetectorError: there is no table yet, or one of its commits is truncated.
    """
    # To look for the first commit is faster, by a third of a second. But log clean-up may have deleted it.
    first_commit = _Path(spark, f"{table_location()}/_delta_log/{0:020d}.json")
    if not (first_commit.exists() or DeltaTable.isDeltaTable(spark, table_location())):
        raise LagDetectorError(f"there is no table {TABLE} in {warehouse()} yet; run python create_table.py first")
    _check_commits()
    DeltaTable.createIfNotExists(spark).tableName(TABLE).location(table_location()).execute()


def _check_commits() -> None:
    """Reject a log with an empty file, as a power failure leaves it. Delta takes it for a commit without rows.

    Checks local disks only. Other file systems write a file completely or not at all.
    """
    log = Path(table_location().removeprefix("file:"), "_delta_log")
    for file in log.glob("*.json"):
        if not file.stat().st_size:
            raise LagDetectorError(f"{file} is empty, its rows are unknown; restore it from a copy, or {START_OVER}")


def delete_table(spark: SparkSession) -> None:
    """Delete the table, and the checkpoints of its consumers, which are of no use for another table.

    Raises:
        LagDetectorError: there is something else than a Delta table in its place, which is left alone.
    """
    table, log = _Path(spark, table_location()), _Path(spark, f"{table_location()}/_delta_log")
    if table.exists() and not (table.is_empty() or log.exists()):
        raise LagDetectorError(
            f"{table_location()} is not a Delta table; move it away or set VISITS_WAREHOUSE to another folder"
        )
    _Path(spark, checkpoints_location()).delete()
    table.delete(last=log)  # interrupted in between, it is still recognized as a table by the next run


class _Path:
    """A file or folder of the warehouse, through Hadoop's file system: on a local disk or in an object store."""

    def __init__(self, spark: SparkSession, location: str) -> None:
        jvm: Any = spark.sparkContext._jvm
        self.path = jvm.org.apache.hadoop.fs.Path(location)
        self.files = self.path.getFileSystem(spark._jsparkSession.sessionState().newHadoopConf())

    def exists(self) -> bool:
        return bool(self.files.exists(self.path))

    def is_empty(self) -> bool:
        return self.files.getFileStatus(self.path).isDirectory() and not self.files.listStatus(self.path)

    def delete(self, last: "_Path | None" = None) -> None:
        if last and self.exists():
            for child in self.files.listStatus(self.path):
                if child.getPath().getName() != last.path.getName():
                    self.files.delete(child.getPath(), True)
        self.files.delete(self.path, True)
        if self.exists():  # Hadoop does not report it
            raise LagDetectorError(READ_ONLY)
