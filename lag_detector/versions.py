"""The last version of a Delta table, the last one that a stream has read completely, and when each was committed."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from delta.tables import DeltaTable
from pyspark.errors import AnalysisException
from pyspark.sql import SparkSession
from pyspark.sql.streaming.listener import StreamingQueryProgress

from .errors import LagDetectorError

Source = Mapping[str, Any]

# The `sourceVersion` of an offset. Both mean the same for the table's versions.
KNOWN_OFFSET_FORMATS = (1, 3)
UPGRADE = "use the Spark and Delta versions that this lag detector supports, or a newer lag detector"


class Commit(NamedTuple):
    """A version of a table and when it was committed, as Unix time in seconds."""

    version: int
    timestamp: float


def last_table_version(spark: SparkSession, table: str) -> int:
    """Return the last version of a Delta table, whoever wrote it.

    Args:
        spark: a session with Delta Lake.
        table: the table's name in the catalog, or its path.

    Returns:
        The version; 0 for a table that was only created.

    Raises:
        LagDetectorError: there is no such Delta table.

    Source: the newest entry of the table's history, which is one file of its log.
    """
    return last_commit(spark, table).version


def last_commit(spark: SparkSession, table: str) -> Commit:
    """Return the last version of a Delta table and its commit timestamp, from one query of the history.

    Args:
        spark: a session with Delta Lake.
        table: the table's name in the catalog, or its path.

    Raises:
        LagDetectorError: there is no such Delta table.
    """
    newest = _newest_commits(spark, table, 1)
    if not newest:
        raise LagDetectorError(f"the history of {table} is empty; create the table again")
    return Commit(*max(newest.items()))


def commit_timestamp(spark: SparkSession, table: str, version: int) -> float | None:
    """Return when a version of a Delta table was committed.

    Args:
        spark: a session with Delta Lake.
        table: the table's name in the catalog, or its path.
        version: a version of the table.

    Returns:
        Unix time in seconds: the in-commit timestamp where the table has them, else the modification time of the
        commit's file. None if the table does not have that version yet, or its log no longer has it.

    Raises:
        LagDetectorError: there is no such Delta table.

    Source: the table's history, newest first. The older the version, the longer it takes.
    """
    limit = 1
    while True:
        commits = _newest_commits(spark, table, limit)
        newest = max(commits, default=version)
        if version in commits or newest - version < limit:
            return commits.get(version)
        limit = max(newest - version + 1, 2 * limit)  # doubled, because a writer may commit while we ask


def next_version(progress: Mapping[str, Any] | None, table: str | None = None) -> int:
    """Return the version that a stream's end offset names: the next one to read, or to finish reading.

    A Delta stream does not report what it has read but where it will continue. The last version that it has read
    completely is this one minus one.

    Args:
        progress: the query's `lastProgress`, or its parsed JSON.
        table: the table's id, see `table_id`. Required if the query reads several Delta tables.

    Raises:
        LagDetectorError: as `last_read_version`, and if no version has been read completely yet.
    """
    version = _next_version(progress, table)
    if version is None:
        raise LagDetectorError("the stream has not read any version completely yet; run it again to continue")
    return version


def last_read_version(progress: Mapping[str, Any] | None, table: str | None = None) -> int | None:
    """Return the last version of a table that a stream has read completely: its `next_version` minus one.

    A commit that is read in part counts as unread. So does every version while the stream is still inside the
    table's initial snapshot. If a query reads the table twice, both sources must have read the version.

    Args:
        progress: the query's `lastProgress`, None before the first one, or its parsed JSON.
        table: the table's id, see `table_id`. Required if the query reads several Delta tables.

    Returns:
        The version, or None while it is unknown: no batch has ended, or the initial snapshot is read in part.

    Raises:
        LagDetectorError: the query reads no Delta table, not this one, or several and `table` is missing; or its
            offsets have an unknown format.

    Source: Delta's `DeltaSourceOffset`, as it is since Delta 3.1.
    """
    version = _next_version(progress, table)
    return None if version is None else version - 1


def _next_version(progress: Mapping[str, Any] | None, table: str | None) -> int | None:
    if progress is None:
        return None
    # PySpark's own progress object holds the offsets as text.
    parsed = json.loads(progress.json) if isinstance(progress, StreamingQueryProgress) else progress
    try:
        versions = [_next_version_of_source(source) for source in _sources_of_table(parsed["sources"], table)]
    except (KeyError, TypeError, ValueError) as error:
        raise LagDetectorError(f"the stream's progress has an unknown format ({error!r}); {UPGRADE}") from error
    return None if None in versions else min(version for version in versions if version is not None)


def _next_version_of_source(source: Source) -> int | None:
    offset = source["endOffset"]
    if offset is None:
        return None
    if offset["sourceVersion"] not in KNOWN_OFFSET_FORMATS:
        raise LagDetectorError(f"the stream's offset has the unknown format {offset['sourceVersion']}; {UPGRADE}")
    if offset["isStartingVersion"]:
        return None
    # A stream of the change feed stops on the last file of a version and does not move on to the next one. The
    # version is complete once another look has found nothing more.
    complete = offset["index"] >= 0 and source["startOffset"] == offset
    return int(offset["reservoirVersion"]) + (1 if complete else 0)


def _sources_of_table(sources: list[Source], table: str | None) -> list[Source]:
    """Return the sources that read the table: several if the query reads it more than once."""
    delta = [source for source in sources if _is_delta(source)]
    if not delta:
        raise LagDetectorError(f"the stream reads no Delta table but {[source['description'] for source in sources]}")
    ids = {source["description"]: source["endOffset"]["reservoirId"] for source in delta if source["endOffset"]}
    tables: dict[str, list[Source]] = {}
    for source in delta:
        tables.setdefault(ids.get(source["description"], source["description"]), []).append(source)
    names = ", ".join(of_table[0]["description"] for of_table in tables.values())
    if table is None:
        known = [name for name, of_table in tables.items() if name in ids.values() or _has_path(of_table[0])]
        if len(known) > 1:
            raise LagDetectorError(f"the stream reads {len(known)} Delta tables ({names}); say which one by its id")
        return delta
    # Without an offset there is no id yet: such a source may read the table, unless its path is another one.
    without_id = [source for source in delta if source["description"] not in ids]
    if table in tables:
        return tables[table] + [source for source in without_id if not _has_path(source)]
    if without_id:
        return without_id
    raise LagDetectorError(f"the stream does not read the table with the id {table} but {names}")


def _is_delta(source: Source) -> bool:
    """Recognize a Delta source by its offset, or by its description while it has none.

    Delta's DSv2 source describes itself by the name and hash of a Java object.
    """
    offset = source["endOffset"]
    has_delta_offset = isinstance(offset, Mapping) and "reservoirId" in offset
    return has_delta_offset or _has_path(source) or ".DeltaV2MicroBatchStream@" in source["description"]


def _has_path(source: Source) -> bool:
    return bool(source["description"].startswith("DeltaSource["))


def table_id(spark: SparkSession, table: str) -> str:
    """Return the id of a Delta table, by which the offsets of a stream refer to it.

    Args:
        spark: a session with Delta Lake.
        table: the table's name in the catalog, or its path.

    Raises:
        LagDetectorError: there is no such Delta table.
    """
    try:
        (row,) = _delta_table(spark, table).detail().select("id").collect()
    except AnalysisException as error:  # of a table by its name in a catalog, if Delta reads it through DSv2
        raise LagDetectorError(f"Delta does not describe the table {table} by this name; use its path") from error
    return str(row["id"])


def _newest_commits(spark: SparkSession, table: str, limit: int) -> dict[int, float]:
    """Return the newest commits of a table: Unix timestamps by version."""
    commits = _delta_table(spark, table).history(limit)
    return dict(commits.selectExpr("version", "unix_micros(timestamp) / 1e6").collect())


def _delta_table(spark: SparkSession, table: str) -> DeltaTable:
    is_path = "/" in table and not table.endswith("`")  # a quoted name may contain a path: delta.`/data/orders`
    try:
        return DeltaTable.forPath(spark, table) if is_path else DeltaTable.forName(spark, table)
    except AnalysisException as error:
        raise LagDetectorError(f"there is no Delta table {table}; check its name or path") from error
