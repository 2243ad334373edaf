"""The last version written to a Delta table, the last version a stream has read completely, and when each was made."""

import json
from collections.abc import Mapping
from typing import Any

from lag_detector.errors import LagDetectorError

from delta.tables import DeltaTable
from pyspark.errors import AnalysisException
from pyspark.sql import SparkSession
from pyspark.sql.streaming.listener import StreamingQueryProgress

Source = Mapping[str, Any]

# `sourceVersion` of an offset; both say the same of the table's versions.
KNOWN_OFFSETS = (1, 3)
NEWER = "go back to the pinned versions of Spark and Delta, or look for a newer lag detector"


def last_table_version(spark: SparkSession, table: str) -> int:
    """Ask a Delta table for its last version, whoever wrote it.

    Args:
        spark: a session that speaks Delta.
        table: the table's name in the catalog, or its path.

    Returns:
        the version, 0 for a table that was only created.

    Raises:
        LagDetectorError: there is no such Delta table.

    Source: the newest entry of the table's history; one file of the log, however long the history is.
    """
    return last_commit(spark, table)[0]


def last_commit(spark: SparkSession, table: str) -> tuple[int, float]:
    """Ask a Delta table for its last version and when that was committed, in one look at its history.

    Args:
        spark: a session that speaks Delta.
        table: the table's name in the catalog, or its path.

    Returns:
        what `last_table_version` and `commit_time` give.

    Raises:
        LagDetectorError: there is no such Delta table.
    """
    newest = _commits(spark, table, 1)
    if not newest:
        raise LagDetectorError(f"the history of {table} is empty; create the table again")
    return max(newest.items())


def commit_time(spark: SparkSession, table: str, version: int) -> float | None:
    """Ask a Delta table when one of its versions was committed.

    Args:
        spark: a session that speaks Delta.
        table: the table's name in the catalog, or its path.
        version: a version of the table.

    Returns:
        Unix time in seconds: the commit's own timestamp where the table has in-commit timestamps, else the time of
        its file in the log; None while it is unknown: the table does not have that version yet, or its log no more.

    Raises:
        LagDetectorError: there is no such Delta table.

    Source: the table's history from that version on, so it takes the longer the further the version is behind.
    """
    asked = 1
    while True:
        commits = _commits(spark, table, asked)
        last = max(commits, default=version)
        if version in commits or last - version < asked:
            return commits.get(version)
        asked = max(last - version + 1, 2 * asked)  # twice, for the writer goes on while we ask


def last_read_version(progress: Mapping[str, Any] | None, table: str | None = None) -> int | None:
    """Tell which version of a table a stream has read completely, by the end offset of its last batch.

    A Delta offset names the *next* version to read, so the last one read is the version before it. That
    holds for a commit read in part too (`index` of 0 or more): it counts as unread until its last file. A
    stream that reads the change feed ends on that file; then it counts once nothing more was found. While a
    stream is still inside the table's initial snapshot (`isStartingVersion`), no version is complete. Of a
    table that a query reads twice, that version counts which both have read.

    Args:
        progress: the query's `lastProgress`, None before the first, or its JSON parsed.
        table: the table's id, see `table_id`; needed where the query reads several Delta tables.

    Returns:
        the version, or None while it is unknown: no batch has ended, or the initial snapshot is half read.

    Raises:
        LagDetectorError: the query does not read the table, no Delta table at all, or several without `table`;
            or its offsets are of a newer form than the ones that are known here.

    Source: Delta's `DeltaSourceOffset` as it is since Delta 3.1.
    """
    if progress is None:
        return None
    # PySpark has turned the offsets in its own form of a progress into text.
    parsed = json.loads(progress.json) if isinstance(progress, StreamingQueryProgress) else progress
    try:
        versions = [_version_read(source) for source in _sources(parsed["sources"], table)]
    except (KeyError, TypeError, ValueError) as error:
        raise LagDetectorError(
            f"the stream's progress is of a form that is not known here ({error!r}); {NEWER}"
        ) from error
    return None if None in versions else min(version for version in versions if version is not None)


def _sources(sources: list[Source], table: str | None) -> list[Source]:
    """Find the sources that read the table: one, or several where the query reads it more than once."""
    tables: dict[str, list[Source]] = {}
    for source in sources:
        if source["description"].startswith("DeltaSource["):
            tables.setdefault(source["description"], []).append(source)
    if not tables:
        raise LagDetectorError(f"the stream reads no Delta table but {[source['description'] for source in sources]}")
    if table is None:
        if len(tables) > 1:
            raise LagDetectorError(f"the stream reads {len(tables)} Delta tables ({', '.join(tables)}); say which one")
        return next(iter(tables.values()))
    without_offset = []
    for same in tables.values():
        ids = {source["endOffset"]["reservoirId"] for source in same if source["endOffset"]}
        if table in ids:
            return same
        without_offset += [] if ids else same
    if without_offset:
        return without_offset  # the table may be among them, so it is unknown
    raise LagDetectorError(f"the stream does not read the table with the id {table} but {', '.join(tables)}")


def _version_read(source: Source) -> int | None:
    offset = source["endOffset"]
    if offset is None:
        return None
    if offset["sourceVersion"] not in KNOWN_OFFSETS:
        raise LagDetectorError(
            f"Delta's offset is of version {offset['sourceVersion']}, which is not known here; {NEWER}"
        )
    if offset["isStartingVersion"]:
        return None
    found_nothing_more = source["startOffset"] == offset
    return int(offset["reservoirVersion"]) - (0 if offset["index"] >= 0 and found_nothing_more else 1)


def table_id(spark: SparkSession, table: str) -> str:
    """Ask a Delta table for its id, by which the offsets of a stream name it.

    Args:
        spark: a session that speaks Delta.
        table: the table's name in the catalog, or its path.

    Raises:
        LagDetectorError: there is no such Delta table.
    """
    (row,) = _delta_table(spark, table).detail().select("id").collect()
    return str(row["id"])


def _commits(spark: SparkSession, table: str, newest: int) -> dict[int, float]:
    """Give the newest commits of a table: their Unix times by their versions."""
    commits = _delta_table(spark, table).history(newest)
    return dict(commits.selectExpr("version", "unix_micros(timestamp) / 1e6").collect())


def _delta_table(spark: SparkSession, table: str) -> DeltaTable:
    path = "/" in table and not table.endswith("`")  # a name may be quoted, as in delta.`/data/orders`
    try:
        return DeltaTable.forPath(spark, table) if path else DeltaTable.forName(spark, table)
    except AnalysisException as error:
        raise LagDetectorError(f"there is no Delta table {table}; check its name, or its path") from error
