"""The last version written to a Delta table and the last version a stream has read completely."""

from collections.abc import Mapping
from typing import Any

from lag_detector.errors import LagDetectorError

from delta.tables import DeltaTable
from pyspark.sql import SparkSession


def last_table_version(spark: SparkSession, table: str) -> int:
    """Ask a Delta table for its last version, whoever wrote it.

    Args:
        spark: a session that speaks Delta.
        table: the table's name in the catalog.

    Returns:
        the version, 0 for a table that was only created.

    Source: the newest entry of the table's history; one file of the log, however long the history is.
    """
    newest = DeltaTable.forName(spark, table).history(1).select("version").head()
    if newest is None:
        raise LagDetectorError(f"the history of {table} is empty; create the table again")
    return int(newest["version"])


def last_read_version(progress: Mapping[str, Any]) -> int | None:
    """Tell which version a stream has read completely, by the end offset of its last batch.

    A Delta offset names the *next* version to read, so the last one read is the version before it. That
    holds for a commit read in part too (`index` of 0 or more): it counts as unread until its last file.
    While a stream is still inside the table's initial snapshot (`isStartingVersion`), no version is
    complete.

    Args:
        progress: a `StreamingQueryProgress` as parsed JSON, of a query with one Delta source.

    Returns:
        the version, or None while it is unknown: no batch has ended, or the initial snapshot is half read.

    Raises:
        LagDetectorError: the query has no Delta source, or more sources than one.

    Source: Delta's `DeltaSourceOffset` as it is since Delta 3.1.
    """
    sources = progress["sources"]
    if len(sources) != 1:
        raise LagDetectorError(f"the stream has {len(sources)} sources; its version read is that of exactly one")
    offset = sources[0]["endOffset"]
    if offset is None:
        return None
    if "reservoirVersion" not in offset:
        raise LagDetectorError(f"the stream reads {sources[0]['description']}, which is no Delta table")
    if offset["isStartingVersion"]:
        return None
    return int(offset["reservoirVersion"]) - 1
