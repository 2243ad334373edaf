"""Delta tables with every feature: the versions written and read, and when each was committed."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from lag_detector import versions
from lag_detector.errors import LagDetectorError
from lag_detector.versions import commit_timestamp, last_commit, last_read_version, table_detail, table_id
from tests.helpers.delta_tables import Lake
from tests.helpers.running_streams import (
    V2_MODE,
    assert_reads_v2,
    read_stream,
    read_v2_stream,
    run_to_end,
    v2_enabled,
)

import pytest
from pyspark.sql import SparkSession

TABLES = {
    "plain": ("", "OPTIMIZE {table}", {}),
    "deletion-vectors": (
        "TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')",
        "DELETE FROM {table} WHERE id = 0",
        {"skipChangeCommits": "true"},
    ),
    "column-mapping-and-liquid-clustering": (
        "CLUSTER BY (id) TBLPROPERTIES ('delta.columnMapping.mode' = 'name')",
        "ALTER TABLE {table} ADD COLUMN more INT",
        {},
    ),
    "change-data-feed": (
        "TBLPROPERTIES ('delta.enableChangeDataFeed' = 'true')",
        "UPDATE {table} SET day = 7 WHERE id = 1",
        {"readChangeFeed": "true"},
    ),
    "partitions": ("PARTITIONED BY (day)", "DELETE FROM {table} WHERE day = 0", {"ignoreDeletes": "true"}),
    "in-commit-timestamps": (
        "TBLPROPERTIES ('delta.enableInCommitTimestamps' = 'true')",
        "ALTER TABLE {table} SET TBLPROPERTIES ('some.property' = 'here')",
        {"startingVersion": "2"},
    ),
}
# Those whose offsets or timestamps are found in a way of their own.
IN_MAKE_TEST = {"deletion-vectors", "change-data-feed", "in-commit-timestamps"}


def timestamp_on_disk(path: str, version: int) -> float:
    """Return when a version was committed, as Delta's protocol defines it, from the commit's file."""
    file = Path(path, "_delta_log", f"{version:020d}.json")
    actions = [json.loads(line) for line in file.read_text().splitlines()]
    (commit,) = [action["commitInfo"] for action in actions if "commitInfo" in action]
    return float(commit.get("inCommitTimestamp", int(file.stat().st_mtime * 1000))) / 1000


def read_to_end(lake: Lake, path: str, **options: str) -> Any:
    """Read what is new in a table, and return the query's last progress."""
    return run_to_end(lake, read_stream(lake, path, **options)).lastProgress


@pytest.mark.parametrize(
    ("features", "change", "options"),
    [
        pytest.param(*case, id=name, marks=() if name in IN_MAKE_TEST else pytest.mark.slow)
        for name, case in TABLES.items()
    ],
)
def test_versions_and_timestamps_of_table_with_feature_are_right(
    lake: Lake, features: str, change: str, options: dict[str, str]
) -> None:
    path = lake.create("orders", features)
    first = read_to_end(lake, path, **options)
    assert (last_commit(lake.spark, os.path.relpath(path)).version, last_read_version(first)) == (3, 3)
    lake.spark.sql(change.format(table=f"delta.`{path}`"))
    assert last_commit(lake.spark, f"delta.`{path}`").version == 4
    second = read_to_end(lake, path, **options)
    if "readChangeFeed" in options:  # it ends on the change's last file, and has not yet found that there is no more
        assert last_read_version(second) == 3
        second = read_to_end(lake, path, **options)
    assert last_read_version(second, table_id(lake.spark, path)) == 4
    # As after a copy of the folder: only in-commit timestamps stay the same.
    os.utime(Path(path, "_delta_log", f"{3:020d}.json"), times=(1719835200, 1719835200))
    timestamps = [commit_timestamp(lake.spark, path, version) for version in range(6)]
    assert timestamps == [*(timestamp_on_disk(path, version) for version in range(5)), None]


def test_commit_timestamp_of_version_deleted_from_log_is_unknown(lake: Lake) -> None:
    path = lake.create("orders")
    lake.spark.sql(f"ALTER TABLE delta.`{path}` SET TBLPROPERTIES ('delta.checkpointInterval' = '1')")
    lake.spark.sql(f"INSERT INTO delta.`{path}` VALUES (7, 7)")
    for version in range(3):
        Path(path, "_delta_log", f"{version:020d}.json").unlink()
    timestamps = [commit_timestamp(lake.spark, path, version) for version in (1, 3)]
    assert timestamps == [None, timestamp_on_disk(path, 3)]


def test_commit_timestamp_of_old_version_reads_one_commit(lake: Lake) -> None:
    """However far behind the version is. The name of the folder has all that Spark takes for a wildcard."""
    path = lake.create("or*d?e[r]s{1}\\'`-")
    lake.spark.sql(f"CREATE OR REPLACE TABLE quoted USING delta AS SELECT * FROM delta.`{path.replace('`', '``')}`")
    lake.spark.sql("INSERT INTO quoted VALUES (7, 7)")
    with patch.object(versions, "_newest_commits", wraps=versions._newest_commits) as query:
        assert commit_timestamp(lake.spark, path, 0) == timestamp_on_disk(path, 0)
        assert commit_timestamp(lake.spark, "quoted", 0, path) == timestamp_on_disk(path, 0)
        query.assert_not_called()
        location = table_detail(lake.spark, "quoted").location.removeprefix("file:")
        assert commit_timestamp(lake.spark, "quoted", 0) == timestamp_on_disk(location, 0)
        query.assert_called_once_with(lake.spark, "quoted", 1)


def test_commit_timestamp_while_writer_commits_is_found(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each query of the history finds two more versions than the one before. The commit's file cannot be read."""
    path = lake.create("orders")
    newest_commits = versions._newest_commits

    def commit_and_query(*arguments: Any) -> dict[int, float]:
        for _ in range(2):
            lake.spark.sql(f"INSERT INTO delta.`{path}` VALUES (7, 7)")
        return newest_commits(*arguments)

    monkeypatch.setattr(versions, "_newest_commits", commit_and_query)
    assert commit_timestamp(lake.spark, path, 3, f"{lake.folder}/nothing") == timestamp_on_disk(path, 3)


def test_last_read_version_of_stream_from_latest_without_new_data_is_unknown(lake: Lake) -> None:
    path = lake.create("orders")
    assert last_read_version(read_to_end(lake, path, startingVersion="latest")) is None
    assert last_read_version(read_to_end(lake, path, startingVersion="3")) == 3


@pytest.mark.parametrize("v2", [False, True], ids=["classic", "dsv2"])
def test_last_read_version_of_two_tables_is_the_version_of_each(lake: Lake, v2: bool) -> None:
    orders, refunds, other = lake.create("orders"), lake.create("refunds"), lake.create("other")
    lake.spark.sql(f"INSERT INTO delta.`{refunds}` VALUES (7, 7)")
    with v2_enabled(lake.spark, v2):
        read = read_v2_stream if v2 else read_stream
        query = run_to_end(lake, read(lake, orders).union(read(lake, refunds)))
        if v2:
            assert_reads_v2(query, sources=2)
        ids = [table_id(lake.spark, table) for table in (orders, refunds, other)]
    assert [last_read_version(query.lastProgress, table) for table in ids[:2]] == [3, 4]
    names = "V2.*V2" if v2 else "orders.*refunds"
    with pytest.raises(LagDetectorError, match=rf"reads 2 Delta tables \(.*{names}.*\); say which"):
        last_read_version(query.lastProgress)
    with pytest.raises(LagDetectorError, match="does not read the table with the id"):
        last_read_version(query.lastProgress, ids[2])


def test_last_read_version_of_dsv2_stream_is_right(lake: Lake) -> None:
    path = lake.create("orders")
    with v2_enabled(lake.spark):
        for version in (3, 4):
            query = run_to_end(lake, read_v2_stream(lake, path))
            assert_reads_v2(query, sources=1)
            assert last_read_version(query.lastProgress) == version
            lake.spark.sql(f"INSERT INTO delta.`{path}` VALUES (7, 7)")
        lake.spark.sql(f"CREATE TABLE IF NOT EXISTS dsv2 USING delta LOCATION '{path}'")
        for table in (path, f"delta.`{path}`", "dsv2", "default.dsv2"):
            assert last_read_version(query.lastProgress, table_id(lake.spark, table)) == 4
            assert last_commit(lake.spark, table).version == 5
            times = [commit_timestamp(lake.spark, table, version) for version in (1, 4)]
            assert times == [timestamp_on_disk(path, 1), timestamp_on_disk(path, 4)]
        assert lake.spark.catalog.currentDatabase() == "default"
        assert (active := SparkSession.getActiveSession())
        assert active.conf.get(V2_MODE) == "STRICT"  # the caller's session, and not the one that was asked
    lake.spark.sql("DROP TABLE dsv2")


def test_last_read_version_of_dsv2_self_union_is_the_minimum(lake: Lake) -> None:
    """One source reads all three commits in the first batch, the other one commit per batch."""
    path = lake.create("orders")
    with v2_enabled(lake.spark):
        fast = read_v2_stream(lake, path)
        slow = read_v2_stream(lake, path, maxFilesPerTrigger="1", startingVersion="1")
        query = run_to_end(lake, fast.union(slow))
        assert_reads_v2(query, sources=2)
        assert [last_read_version(progress) for progress in query.recentProgress] == [1, 2, 3]
        assert last_read_version(query.lastProgress, table_id(lake.spark, path)) == 3


@pytest.mark.parametrize("table", ["default.nowhere", "no_catalog.nowhere", "{folder}/nothing", "{folder}/parquet"])
@pytest.mark.parametrize(
    "function",
    [
        pytest.param(table_id, id="table_id"),
        pytest.param(lambda spark, table: commit_timestamp(spark, table, 0), id="commit_timestamp"),
    ],
)
def test_query_of_what_is_not_a_delta_table_raises(lake: Lake, table: str, function: Callable[..., object]) -> None:
    lake.spark.sql("SELECT 1 AS id").write.parquet(f"{lake.folder}/parquet")
    name = table.format(folder=lake.folder)
    with pytest.raises(LagDetectorError, match=f"there is no Delta table {name}; check its name or path"):
        function(lake.spark, name)


@pytest.mark.parametrize("function", [last_commit, table_id])
def test_query_of_table_with_damaged_log_raises(lake: Lake, function: Callable[..., object]) -> None:
    log = Path(lake.folder, "damaged", "_delta_log")
    log.mkdir(parents=True)
    (log / f"{0:020d}.json").write_text("no JSON")
    with pytest.raises(
        LagDetectorError, match=r"cannot describe the table \S+/damaged \([^\n]*; remove that cause, or [^\n]*$"
    ):
        function(lake.spark, f"{lake.folder}/damaged")
