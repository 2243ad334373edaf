"""Any Delta table: the version written, the version read and their times, whatever the table has switched on."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from lag_detector.errors import LagDetectorError
from lag_detector.versions import commit_time, last_read_version, last_table_version, table_id

import pytest
from pyspark.sql import SparkSession

DELETED_ROW = "DELETE FROM {table} WHERE id = 0"
DELETED_PARTITION = "DELETE FROM {table} WHERE day = 0"

TABLES = {
    "plain": ("", "OPTIMIZE {table}", {}),
    "deletion vectors": (
        "TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')",
        DELETED_ROW,
        {"skipChangeCommits": "true"},
    ),
    "column mapping": (
        "TBLPROPERTIES ('delta.columnMapping.mode' = 'name')",
        "ALTER TABLE {table} ADD COLUMN more INT",
        {},
    ),
    "change data feed": (
        "TBLPROPERTIES ('delta.enableChangeDataFeed' = 'true')",
        "UPDATE {table} SET day = 7 WHERE id = 1",
        {"readChangeFeed": "true"},
    ),
    "partitions": ("PARTITIONED BY (day)", DELETED_PARTITION, {"ignoreDeletes": "true"}),
    "liquid clustering": ("CLUSTER BY (id)", "OPTIMIZE {table}", {}),
    "in-commit timestamps": (
        "TBLPROPERTIES ('delta.enableInCommitTimestamps' = 'true')",
        "ALTER TABLE {table} SET TBLPROPERTIES ('some.property' = 'here')",
        {"startingVersion": "2"},
    ),
}


class Lake:
    """A folder with tables, and streams that read them."""

    def __init__(self, spark: SparkSession, folder: Path) -> None:
        self.spark = spark
        self.folder = folder

    def create(self, name: str, features: str = "") -> str:
        """Create a table with an id and a day, in three further versions of two rows each; gives its path."""
        path = f"{self.folder}/{name}"
        self.spark.sql(f"CREATE TABLE delta.`{path}` (id LONG, day INT) USING delta {features}")
        for day in range(3):
            self.spark.sql(f"INSERT INTO delta.`{path}` VALUES ({2 * day}, {day}), ({2 * day + 1}, {day})")
        return path

    def stream(self, *paths: str, **options: str) -> Any:
        """Read what is new in these tables, in one query; gives its last progress."""
        tables = [self.spark.readStream.format("delta").options(**options).load(path) for path in paths]
        stream = tables[0]
        for table in tables[1:]:
            stream = stream.union(table)
        writer = stream.writeStream.foreachBatch(lambda rows, batch: None).trigger(availableNow=True)
        query = writer.option("checkpointLocation", f"{self.folder}/checkpoint").start()
        query.awaitTermination()
        return query.lastProgress


@pytest.fixture
def lake(spark: SparkSession, tmp_path: Path) -> Lake:
    return Lake(spark, tmp_path)


def time_on_disk(path: str, version: int) -> float:
    """Tell when a version was committed, as Delta's protocol defines it, from the file itself."""
    file = Path(path, "_delta_log", f"{version:020d}.json")
    actions = [json.loads(line) for line in file.read_text().splitlines()]
    (commit,) = [action["commitInfo"] for action in actions if "commitInfo" in action]
    return float(commit.get("inCommitTimestamp", int(file.stat().st_mtime * 1000))) / 1000


@pytest.mark.parametrize(("features", "change", "options"), TABLES.values(), ids=TABLES)
def test_versions_and_times(lake: Lake, features: str, change: str, options: dict[str, str]) -> None:
    path = lake.create("orders", features)
    first = lake.stream(path, **options)
    assert (last_table_version(lake.spark, path), last_read_version(first)) == (3, 3)
    lake.spark.sql(change.format(table=f"delta.`{path}`"))
    assert last_table_version(lake.spark, f"delta.`{path}`") == 4
    second = lake.stream(path, **options)
    if "readChangeFeed" in options:  # the stream ends on the last file of the change, and has yet to find nothing more
        assert last_read_version(second) == 3
        second = lake.stream(path, **options)
    assert last_read_version(second, table_id(lake.spark, path)) == 4
    # As after a copy of the folder: only in-commit timestamps are still what they were.
    os.utime(Path(path, "_delta_log", f"{3:020d}.json"), times=(1719835200, 1719835200))
    times = [commit_time(lake.spark, path, version) for version in range(5)]
    assert times == [time_on_disk(path, version) for version in range(5)]
    assert commit_time(lake.spark, path, 5) is None


def test_the_time_of_a_version_that_the_log_no_longer_has_is_unknown(lake: Lake) -> None:
    path = lake.create("orders")
    lake.spark.sql(f"ALTER TABLE delta.`{path}` SET TBLPROPERTIES ('delta.checkpointInterval' = '1')")
    lake.spark.sql(f"INSERT INTO delta.`{path}` VALUES (7, 7)")
    for version in range(3):
        Path(path, "_delta_log", f"{version:020d}.json").unlink()
    assert [commit_time(lake.spark, path, version) for version in (1, 3)] == [None, time_on_disk(path, 3)]


def test_a_time_is_found_while_the_writer_goes_on(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the history finds two more versions than the one before."""
    from lag_detector import versions

    path = lake.create("orders")
    look = versions._commits

    def commits(spark: SparkSession, table: str, newest: int) -> dict[int, float]:
        for _ in range(2):
            lake.spark.sql(f"INSERT INTO delta.`{path}` VALUES (7, 7)")
        return look(spark, table, newest)

    monkeypatch.setattr(versions, "_commits", commits)
    assert commit_time(lake.spark, path, 3) == time_on_disk(path, 3)


def test_a_stream_that_starts_at_the_latest_and_finds_nothing_is_unknown(lake: Lake) -> None:
    path = lake.create("orders")
    assert last_read_version(lake.stream(path, startingVersion="latest")) is None
    assert last_read_version(lake.stream(path, startingVersion="3")) == 3


def test_each_table_of_a_query_has_its_own_version(lake: Lake) -> None:
    orders, refunds = lake.create("orders"), lake.create("refunds")
    lake.spark.sql(f"INSERT INTO delta.`{refunds}` VALUES (7, 7)")
    progress = lake.stream(orders, refunds)
    assert [last_read_version(progress, table_id(lake.spark, table)) for table in (orders, refunds)] == [3, 4]
    with pytest.raises(LagDetectorError, match=r"reads 2 Delta tables \(.*orders.*refunds.*\); say which"):
        last_read_version(progress)
    other = lake.create("other")
    with pytest.raises(LagDetectorError, match="does not read the table with the id"):
        last_read_version(progress, table_id(lake.spark, other))


def test_a_table_that_is_made_anew_is_another_one(lake: Lake) -> None:
    path = lake.create("orders")
    progress = lake.stream(path)
    shutil.rmtree(path)
    lake.create("orders")
    with pytest.raises(LagDetectorError, match="does not read the table with the id"):
        last_read_version(progress, table_id(lake.spark, path))


@pytest.mark.parametrize("table", ["default.nowhere", "no_catalog.nowhere", "{folder}/nothing", "{folder}/parquet"])
@pytest.mark.parametrize("ask", [last_table_version, table_id, lambda spark, table: commit_time(spark, table, 0)])
def test_what_is_no_delta_table(lake: Lake, table: str, ask: Any) -> None:
    lake.spark.sql("SELECT 1 AS id").write.parquet(f"{lake.folder}/parquet")
    name = table.format(folder=lake.folder)
    with pytest.raises(LagDetectorError, match=f"there is no Delta table {name}; check its name, or its path"):
        ask(lake.spark, name)
