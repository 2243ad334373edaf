"""The visits table: its name, its columns, its metrics, and how it is registered and printed."""

import sys
from pathlib import Path

from tutorial.error_messages import START_OVER, ahead_of_table, another_table
from tutorial.files import warehouse_path
from tutorial.settings import table_location, warehouse

from lag_detector import LagDetectorError, commit_timestamp

from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructType

TABLE = "default.visits"
WRITER_VERSION = "visits_writer_version"
READER_VERSION = "visits_reader_version"
METRICS = (WRITER_VERSION, READER_VERSION)
# What `columns` returns for the tutorial's table.
COLUMNS = [
    ("visit_id", "string", False),
    ("event_time", "timestamp", False),
    ("user_id", "string", False),
    ("page", "string", False),
]
ALL_ROWS = 1_000_000


def print_visits(visits: DataFrame, batch_id: int | None = None) -> None:
    """Print all visits ordered by their id, untruncated. As a `foreachBatch` function it also gets the batch's id."""
    visits.orderBy("visit_id").show(ALL_ROWS, truncate=False)
    sys.stdout.flush()  # before the stream commits them as read, so that a killed script has printed them


def register_table(spark: SparkSession, to_write: bool = False) -> None:
    """Register the table in the session's catalog, which is in memory and starts empty.

    Args:
        spark: a session.
        to_write: whether it must be exactly the tutorial's table.

    Raises:
        LagDetectorError: there is no table yet, one of its commits is truncated, or it is another table.
    """
    # To look for the first commit is faster, by a third of a second. But log clean-up may have deleted it.
    first_commit = warehouse_path(spark, f"{table_location()}/_delta_log/{0:020d}.json")
    if not (first_commit.exists() or DeltaTable.isDeltaTable(spark, table_location())):
        raise LagDetectorError(f"there is no table {TABLE} in {warehouse()} yet; run python create_table.py first")
    _check_commits()
    DeltaTable.createIfNotExists(spark).tableName(TABLE).location(table_location()).execute()
    if to_write and columns(spark.table(TABLE).schema) != COLUMNS:
        raise LagDetectorError(another_table())


def commit_time(spark: SparkSession, version: int) -> float:
    """Return when a version of the table was committed, as Unix time in seconds.

    Raises:
        LagDetectorError: the table does not have it. A short run's source does not say so by itself.
    """
    timestamp = commit_timestamp(spark, TABLE, version, table_location())
    if timestamp is None:
        raise LagDetectorError(ahead_of_table(version))
    return timestamp


def columns(schema: StructType) -> list[tuple[str, str, bool]]:
    """Return the name, the type and the nullability of each column."""
    return [(field.name, field.dataType.simpleString(), field.nullable) for field in schema]


def _check_commits() -> None:
    """Reject a log with an empty file, as a power failure leaves it. Delta takes it for a commit without rows.

    Checks local disks only. Other file systems write a file completely or not at all.
    """
    log = Path(table_location().removeprefix("file:"), "_delta_log")
    for file in log.glob("*.json"):
        if not file.stat().st_size:
            raise LagDetectorError(f"{file} is empty, its rows are unknown; restore it from a copy, or {START_OVER}")
