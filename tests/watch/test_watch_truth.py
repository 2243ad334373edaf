"""The backlog that the watcher shows before a run is what the run reads: with real tables of every kind."""

import logging
import os
import shutil
import time
from pathlib import Path
from typing import NamedTuple

from delta_watch.backlog import NOTHING, Reads
from lag_detector import commit_timestamp
from tests.helpers.delta_tables import Lake
from tests.helpers.stream_truth import FILE_BY_FILE, Reader, Watchers, check_run

import pytest
from pyspark.errors import StreamingQueryException

APPEND = "INSERT INTO {table} SELECT /*+ REPARTITION(3) */ id, 5 FROM range(10, 22)"
DELETE_ROW = "DELETE FROM {table} WHERE id = 10"
DELETE_FILE = "DELETE FROM {table} WHERE day = 0"
MERGE = (
    "MERGE INTO {table} t USING (SELECT id, 9 AS day FROM range(20, 24)) s ON s.id = t.id "
    "WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *"
)
INSERTING_MERGE = (
    "MERGE INTO {table} t USING (SELECT id, 9 AS day FROM range(21, 26)) s ON s.id = t.id "
    "WHEN NOT MATCHED THEN INSERT *"
)
VECTORS = "'delta.enableDeletionVectors' = 'true'"
EACH = "'delta.checkpointInterval' = '1'"
CHANGE_FEED = "'delta.enableChangeDataFeed' = 'true'"


class Case(NamedTuple):
    """A kind of table at version 3, and what happens to it after a stream has read it.

    Args:
        changes: SQL statements.
        reads: what the streams do that read it.
        rewrites: how many of these commits also remove rows.
        features: the end of the CREATE TABLE statement.
    """

    changes: tuple[str, ...]
    reads: tuple[Reads, ...] = ("appends",)
    rewrites: int = 0
    features: str = ""


BOTH: tuple[Reads, ...] = ("appends", "rewrites")
CASES = {
    "optimize": Case((APPEND, "OPTIMIZE {table}", APPEND)),
    "delete-with-deletion-vectors": Case(
        (APPEND, DELETE_ROW, "DELETE FROM {table} WHERE id = 11", DELETE_FILE), BOTH, 3, f"TBLPROPERTIES ({VECTORS})"
    ),
    "merge": Case((APPEND, INSERTING_MERGE, MERGE), BOTH, 1),
    # A way back removes files. The way forward adds them again and removes none, so every stream reads them.
    "restore": Case(("RESTORE {table} TO VERSION AS OF 1", "RESTORE {table} TO VERSION AS OF 3", APPEND), BOTH, 1),
    "column-mapping-and-liquid-clustering": Case(
        (APPEND, "ALTER TABLE {table} ADD COLUMN more INT", "INSERT INTO {table} VALUES (7, 7, 7)", "OPTIMIZE {table}"),
        features="CLUSTER BY (id) TBLPROPERTIES ('delta.columnMapping.mode' = 'name')",
    ),
    "change-data-feed": Case(
        (APPEND, "UPDATE {table} SET day = 7 WHERE id = 12", DELETE_FILE, APPEND, DELETE_ROW),
        ("change_feed", "appends"),
        3,
        f"TBLPROPERTIES ({CHANGE_FEED})",
    ),
    "partitions-and-v2-checkpoints": Case(
        (APPEND, DELETE_FILE, APPEND),
        BOTH,
        1,
        "PARTITIONED BY (day) TBLPROPERTIES ('delta.checkpointPolicy' = 'v2', 'delta.checkpointInterval' = '2')",
    ),
}

# Files that only rearrange rows, files with deletion vectors, and files of the change feed.
IN_MAKE_TEST = {"optimize", "delete-with-deletion-vectors", "change-data-feed"}


@pytest.fixture(autouse=True)
def quiet_kills(caplog: pytest.LogCaptureFixture) -> None:
    """py4j logs every simulated kill at length."""
    caplog.set_level(logging.CRITICAL, logger="py4j")


def reader(lake: Lake, *tables: str, reads: Reads = "appends", v2: bool = False, **options: str) -> Reader:
    return Reader(lake.spark, lake.folder / f"checkpoint of {reads}", tables, reads, options, v2)


def change(lake: Lake, table: str, *changes: str) -> None:
    for sql in changes:
        lake.spark.sql(sql.format(table=f"delta.`{table}`"))


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=name, marks=() if name in IN_MAKE_TEST else pytest.mark.slow)
        for name, case in CASES.items()
    ],
)
def test_backlog_of_table_with_feature_is_what_the_next_run_reads(lake: Lake, case: Case) -> None:
    table = lake.create("orders %41", case.features)
    readers = [reader(lake, table, reads=reads) for reads in case.reads]
    for each in readers:
        each.run()
    watchers = Watchers(*readers)
    assert [watchers.backlog(each).versions for each in readers] == [0] * len(readers)
    change(lake, table, *case.changes)
    for each in readers:
        whole = check_run(watchers, each, FILE_BY_FILE, kill_in=2)
        assert (whole.version, whole.versions, whole.rewrites) == (3, len(case.changes), case.rewrites)
        assert watchers.amount(each).files > 0
        check_run(watchers, each)


def test_stream_that_fails_at_a_rewrite_has_it_before_it_as_pending(lake: Lake) -> None:
    table = lake.create("orders", f"TBLPROPERTIES ({VECTORS})")
    failing = reader(lake, table, skipChangeCommits="false")
    failing.run()
    watchers = Watchers(failing)
    change(lake, table, APPEND, DELETE_ROW)
    shown = watchers.backlog(failing)
    assert (shown.versions, shown.rewrites) == (2, 1)
    with pytest.raises(StreamingQueryException, match="DELTA_SOURCE_TABLE_IGNORE_CHANGES"):
        failing.run()
    assert watchers.backlog(failing) == shown
    check_run(watchers, reader(lake, table))  # the same checkpoint


@pytest.mark.slow
def test_stream_that_ignores_deletes_reads_what_is_shown(lake: Lake) -> None:
    table = lake.create("orders", "PARTITIONED BY (day)")
    each = reader(lake, table, skipChangeCommits="false", ignoreDeletes="true")
    each.run()
    watchers = Watchers(each)
    change(lake, table, APPEND, DELETE_FILE, APPEND)
    assert check_run(watchers, each, {"maxFilesPerTrigger": "2"}, kill_in=1).rewrites == 1
    check_run(watchers, each)


def test_time_of_the_oldest_commit_not_read_is_the_in_commit_timestamp(lake: Lake) -> None:
    table = lake.create("orders", "TBLPROPERTIES ('delta.enableInCommitTimestamps' = 'true')")
    each = reader(lake, table)
    each.run()
    watchers = Watchers(each)
    change(lake, table, APPEND, APPEND)
    os.utime(f"{table}/_delta_log/{4:020d}.json", times=(1719835200, 1719835200))  # as after a copy of the folder
    recorded = commit_timestamp(lake.spark, table, 4)
    assert check_run(watchers, each).since == recorded != 1719835200


def test_rows_of_files_without_statistics_are_unknown(lake: Lake) -> None:
    table = lake.create("orders")
    each = reader(lake, table)
    each.run()
    watchers = Watchers(each)
    lake.spark.conf.set("spark.databricks.delta.stats.collect", "false")
    try:
        change(lake, table, APPEND)
    finally:
        lake.spark.conf.unset("spark.databricks.delta.stats.collect")
    shown = check_run(watchers, each, FILE_BY_FILE, kill_in=1).amount
    assert shown
    assert (shown.files, shown.rows) == (3, None)
    check_run(watchers, each)


@pytest.mark.parametrize("v2", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["classic", "dsv2"])
def test_initial_snapshot_in_part(lake: Lake, v2: bool) -> None:
    """Of a table with removed files and deletion vectors, in the order in which the stream reads it."""
    table = lake.create("orders", f"TBLPROPERTIES ({VECTORS})")
    # Each commit with another number of rows, because the order of the files' names is random.
    change(lake, table, *(f"INSERT INTO {{table}} SELECT id, 1 FROM range({rows})" for rows in (1, 3, 5, 7)))
    change(lake, table, APPEND, DELETE_ROW, DELETE_FILE)
    each = reader(lake, table, v2=v2, maxFilesPerTrigger="1")
    watchers = Watchers(each)
    assert watchers.reason(each) == "missing"
    each.run(kill_in=0)
    assert watchers.reason(each) == "no_batch"
    assert each.run(kill_in=2)[table].files == 2
    change(lake, table, "OPTIMIZE {table}", APPEND)  # does not change what the snapshot has
    shown = check_run(watchers, each, kill_in=1)
    assert (shown.version, shown.versions) == (-1, 13)
    assert check_run(watchers, each).version == -1


V2 = "'delta.checkpointPolicy' = 'v2'"
LOG_CHECKPOINTS = {
    "classic": ("", {}),
    "multi-part": ("", {"checkpoint.partSize": "5"}),
    "v2-json": (V2, {"checkpointV2.topLevelFileFormat": "json"}),
    "v2-parquet": (V2, {"checkpointV2.topLevelFileFormat": "parquet"}),
    "statistics-as-columns": (
        "'delta.checkpoint.writeStatsAsJson' = 'false', 'delta.checkpoint.writeStatsAsStruct' = 'true'",
        {},
    ),
}


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind != "v2-parquet")) for kind in LOG_CHECKPOINTS]
)
def test_initial_snapshot_of_a_table_whose_log_starts_at_a_checkpoint(lake: Lake, kind: str) -> None:
    """Without a checksum file, as of other writers, only the checkpoint has the table's id."""
    properties, settings = LOG_CHECKPOINTS[kind]
    table = lake.create("orders", f"TBLPROPERTIES ({VECTORS})")
    change(lake, table, *(f"INSERT INTO {{table}} SELECT id, 1 FROM range({rows})" for rows in (1, 3, 5, 7)))
    for key, value in settings.items():
        lake.spark.conf.set(f"spark.databricks.delta.{key}", value)
    try:
        change(
            lake,
            table,
            DELETE_ROW,
            f"ALTER TABLE {{table}} SET TBLPROPERTIES ({', '.join(filter(None, (properties, EACH)))})",
            APPEND,
        )
    finally:
        for key in settings:
            lake.spark.conf.unset(f"spark.databricks.delta.{key}")
    change(lake, table, "ALTER TABLE {table} SET TBLPROPERTIES ('delta.checkpointInterval' = '100')", DELETE_FILE)
    for file in Path(table, "_delta_log").iterdir():
        if file.suffix == ".crc" or (
            file.suffix == ".json" and int(file.name.split(".")[0]) < 10 and "checkpoint" not in file.name
        ):
            file.unlink()
    each = reader(lake, table, maxFilesPerTrigger="1")
    watchers = Watchers(each)
    each.run(kill_in=2)
    assert check_run(watchers, each, kill_in=1).version == -1
    check_run(watchers, each)


@pytest.mark.slow
def test_log_clean_up(lake: Lake) -> None:
    table = lake.create("orders")
    early, late = reader(lake, table), reader(lake, table, reads="rewrites")
    early.run()
    late.run()
    log = Path(table, "_delta_log")
    old = list(log.iterdir())
    change(lake, table, "ALTER TABLE {table} SET TBLPROPERTIES ('delta.checkpointInterval' = '1')", APPEND)
    late.run()
    watchers = Watchers(early, late)
    assert watchers.backlog(early).versions == 2
    change(lake, table, APPEND)
    # A query that starts again looks again at the last batch that it has read, so the log must still have that.
    late.run()
    for file in [*old, *(log / f"{4:020d}.{kind}" for kind in ("json", "crc", "checkpoint.parquet"))]:
        os.utime(file, times=(time.time() - 100 * 24 * 3600,) * 2)
    change(lake, table, APPEND)
    assert not (log / f"{4:020d}.json").exists()
    check_run(watchers, late, FILE_BY_FILE, kill_in=2)
    check_run(watchers, late)
    assert watchers.reason(early) == "log_cleaned"
    lost = watchers.look(early).backlog
    assert lost
    assert (lost.versions, lost.amount) == (4, None)
    with pytest.raises(StreamingQueryException, match="DELTA_LOG_FILE_NOT_FOUND"):
        early.run()


def test_table_created_again(lake: Lake) -> None:
    table = lake.create("orders")
    each = reader(lake, table)
    each.run()
    watchers = Watchers(each)
    change(lake, table, APPEND)
    assert watchers.backlog(each).versions == 1
    shutil.rmtree(table)
    lake.create("orders")
    change(lake, table, APPEND)
    assert watchers.reason(each) == "wrong_table"
    with pytest.raises(StreamingQueryException, match="DIFFERENT_DELTA_TABLE"):
        each.run()
    shutil.rmtree(each.checkpoint)
    each.run(FILE_BY_FILE, kill_in=2)
    check_run(watchers, each)


# Every other test has the first version of the log.
@pytest.mark.parametrize(
    ("v2", "offset_log"),
    [pytest.param(False, "1", id="classic", marks=pytest.mark.slow), pytest.param(True, "2", id="dsv2")],
)
def test_several_sources_in_one_query(lake: Lake, v2: bool, offset_log: str) -> None:
    """One table that is read twice, and another one."""
    orders, refunds = lake.create("orders"), lake.create("refunds")
    each = reader(lake, orders, refunds, orders, v2=v2)
    watchers = Watchers(each)
    lake.spark.conf.set("spark.sql.streaming.offsetLog.formatVersion", offset_log)
    try:
        each.run()
    finally:
        lake.spark.conf.unset("spark.sql.streaming.offsetLog.formatVersion")
    assert (each.checkpoint / "offsets" / "0").read_text().startswith(f"v{offset_log}\n")
    assert [watchers.amount(each, table) for table in (orders, refunds)] == [NOTHING, NOTHING]
    change(lake, orders, APPEND, APPEND)
    change(lake, refunds, "OPTIMIZE {table}", "INSERT INTO {table} VALUES (7, 7)")
    shown = {table: watchers.amount(each, table) for table in (orders, refunds)}
    assert [amount.files for amount in shown.values()] == [12, 1]
    read = each.run(FILE_BY_FILE, kill_in=2)
    rest = {table: watchers.amount(each, table) for table in (orders, refunds)}
    assert [amount.files for amount in rest.values()] == [8, 0]
    assert {table: read[table].plus(rest[table]) for table in shown} == shown
    assert each.run() == rest
    assert [watchers.amount(each, table) for table in (orders, refunds)] == [NOTHING, NOTHING]
