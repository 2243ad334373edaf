"""The last version of a Delta table, the last one that a stream has read completely, and when each was committed."""

import json
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from pyspark.errors import PySparkException
from pyspark.sql import Row, SparkSession
from pyspark.sql.streaming.listener import StreamingQueryProgress

from .errors import LagDetectorError

try:
    from py4j.protocol import Py4JJavaError
except ImportError:  # Spark Connect's own client comes without it
    Py4JJavaError = PySparkException

Source = Mapping[str, Any]

# The `sourceVersion` of an offset. Both mean the same for the table's versions.
KNOWN_OFFSET_FORMATS = (1, 3)
V2_MODE = "spark.databricks.delta.v2.enableMode"
UPGRADE = "use the Spark and Delta versions that this lag detector supports, or a newer lag detector"


class TableDetail(NamedTuple):
    """A table's id, by which the offsets of a stream refer to it, and its path."""

    id: str
    location: str


class Commit(NamedTuple):
    """A version of a table and when it was committed, as Unix time in seconds."""

    version: int
    timestamp: float


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


def commit_timestamp(spark: SparkSession, table: str, version: int, location: str | None = None) -> float | None:
    """Return when a version of a Delta table was committed.

    Args:
        spark: a session with Delta Lake.
        table: the table's name in the catalog, or its path.
        version: a version of the table.
        location: the table's path, see `table_detail`. Without it, Delta is asked for it if need be.

    Returns:
        Unix time in seconds: the in-commit timestamp where the table has them, else the modification time of the
        commit's file. None if the table does not have that version yet, or its log no longer has it.

    Raises:
        LagDetectorError: there is no such Delta table.

    Source: the newest entry of the table's history, or the commit's file in the table's log. A commit that cannot be
        read there, such as one that a catalog has not published yet, is looked up in the history, newest first.
    """
    limit = 1
    location = location or _path(table)
    while True:
        if location and (timestamp := _timestamp_in_log(spark, location, version)) is not None:
            return timestamp
        commits = _newest_commits(spark, table, limit)
        newest = max(commits, default=version)
        if version in commits or newest - version < limit:
            return commits.get(version)
        location = location or table_detail(spark, table).location
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
        sources = [_with_parsed_offsets(source) for source in parsed["sources"]]
        versions = [_next_version_of_source(source) for source in _sources_of_table(sources, table)]
    except (KeyError, TypeError, ValueError) as error:
        raise LagDetectorError(f"the stream's progress has an unknown format ({error!r}); {UPGRADE}") from error
    return None if None in versions else min(version for version in versions if version is not None)


def _with_parsed_offsets(source: Source) -> Source:
    """Over Spark Connect the offsets arrive as text."""
    texts = {key: text for key, text in source.items() if key.endswith("Offset") and isinstance(text, str)}
    return {**source, **{key: json.loads(text) for key, text in texts.items()}}


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
    if not delta and any("tableVersion" in (source["endOffset"] or ()) for source in sources):
        raise LagDetectorError(
            "the stream reads a shared table by Delta Sharing, which is not supported; read the Delta table itself"
        )
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


def table_detail(spark: SparkSession, table: str) -> TableDetail:
    """Return the id and the path of a Delta table.

    Args:
        spark: a session with Delta Lake.
        table: the table's name in the catalog, or its path.

    Raises:
        LagDetectorError: there is no such Delta table.
    """
    (detail,) = _describe(spark, table, f"DETAIL {_sql_name(table)}", "id", "location")
    if detail["id"] is None:  # a table of another format
        raise LagDetectorError(_no_table(table))
    return TableDetail(*detail)


def table_id(spark: SparkSession, table: str) -> str:
    """Return the id of a Delta table, see `table_detail`."""
    return table_detail(spark, table).id


def _newest_commits(spark: SparkSession, table: str, limit: int) -> dict[int, float]:
    """Return the newest commits of a table: Unix timestamps by version."""
    history = f"HISTORY {_sql_name(table)} LIMIT {limit}"
    return dict(_describe(spark, table, history, "version", "unix_micros(timestamp) / 1e6"))


def _timestamp_in_log(spark: SparkSession, location: str, version: int) -> float | None:
    """Return when a version was committed, from the commit's file, or None if that cannot be read."""
    folder = re.sub(r"[{}\[\]*?\\]", r"\\\g<0>", location)  # Spark would take these for wildcards
    timestamp = "coalesce(commitInfo.inCommitTimestamp / 1e3, unix_micros(_metadata.file_modification_time) / 1e6)"
    try:
        commit = (
            spark.read.schema("commitInfo STRUCT<inCommitTimestamp: LONG>")
            .json(f"{folder}/_delta_log/{version:020d}.json")
            .selectExpr(timestamp)
            .first()  # the protocol puts an in-commit timestamp into the first action
        )
    except (PySparkException, Py4JJavaError):
        return None
    return commit[0] if commit else None


def _describe(spark: SparkSession, table: str, what: str, *columns: str) -> list[Row]:
    """Run a DESCRIBE of Delta's. By SQL, since the `DeltaTable` class needs a plugin on a Spark Connect server, and
    finds no table of Unity Catalog by its name."""
    try:
        return spark.sql(f"DESCRIBE {what}").selectExpr(*columns).collect()
    except (PySparkException, Py4JJavaError) as error:
        if spark.conf.get(V2_MODE, "AUTO") == "STRICT":  # then Delta describes no table by its name
            return _in_classic_session(spark, lambda session: _describe(session, table, what, *columns))
        if re.search(r"\[\w*(NOT_FOUND|MISSING_DELTA_TABLE|TABLE_ONLY_OPERATION)\]", str(error)):
            raise LagDetectorError(_no_table(table)) from error
        lines = (line.strip(" :") for line in str(error).splitlines() if not line.startswith("An error occurred"))
        raise LagDetectorError(
            f"Spark cannot describe the table {table} ({next(filter(None, lines), type(error).__name__)}); remove that "
            f"cause, or use the table's {'path' if _path(table) is None else 'name'} instead"
        ) from error


def _in_classic_session(spark: SparkSession, ask: Callable[[SparkSession], list[Row]]) -> list[Row]:
    """Ask in a session with the same catalogs that reads tables by Delta's classic source.

    In a thread of its own, since a new session becomes the active one of its thread.
    """
    database = spark.catalog.currentDatabase()

    def work() -> list[Row]:
        session = spark.newSession()
        session.conf.set(V2_MODE, "NONE")
        session.sql(f"USE `{database}`")
        return ask(session)

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()


def _no_table(table: str) -> str:
    return f"there is no Delta table {table}; check its name or path"


def _sql_name(table: str) -> str:
    """Return a table's name, or its path as a literal: Delta's DSv2 describes no delta.`/data/orders`."""
    path = _path(table)
    return table if path is None else "'" + re.sub(r"[\\']", r"\\\g<0>", path) + "'"


def _path(table: str) -> str | None:
    """Return the path of a table that is named by its path, as it is or as delta.`/data/orders`."""
    if quoted := re.fullmatch(r"delta\.`(.*/.*)`", table, re.IGNORECASE | re.DOTALL):
        return quoted[1].replace("``", "`")
    return table if "/" in table and not table.endswith("`") else None
