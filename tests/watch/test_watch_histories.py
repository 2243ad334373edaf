"""Random histories of a real table and a real stream: what the watcher shows before a run is what the run reads.

On a disk and in a bucket.

`make soak` runs more histories, with another seed each time.
"""

import json
import logging
import os
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from delta_watch.backlog import NOTHING, Amount, Backlog, Reads
from tests.helpers.bucket_server import BucketServer
from tests.helpers.random_histories import run_histories
from tests.helpers.stream_truth import Reader, Watchers

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from pyspark.errors import StreamingQueryException
from pyspark.sql import SparkSession

CREATE = "CREATE TABLE {table} (id LONG, day LONG) USING delta"
LAYOUTS = ["", "PARTITIONED BY (day)", "CLUSTER BY (id)"]
PROPERTIES = {
    "delta.enableDeletionVectors": "true",
    "delta.enableInCommitTimestamps": "true",
    "delta.columnMapping.mode": "name",
    "delta.checkpointPolicy": "v2",
    "delta.checkpointInterval": "2",
}
CHANGES = [
    *("append", "append", "append", "append", "append_without_statistics", "delete", "delete", "update", "merge"),
    *("overwrite", "optimize", "restore", "set_property", "add_column", "vacuum", "clean_up_log", "create"),
]
ONE_FILE = [{"maxFilesPerTrigger": "1"}, {"maxBytesPerTrigger": "1b"}]
LIMITS = [{}, *ONE_FILE, {"maxFilesPerTrigger": "2"}]
BEFORE_OFFSET, AFTER_OFFSET = "before offset", "after offset"
FIRST_READ = ("missing", "no_batch")
# The log no longer has what the stream needs, as the sources for each kind of table and stream say it.
LOST = (
    *("DELTA_LOG_FILE_NOT_FOUND", "DELTA_MISSING_FILES_UNEXPECTED_VERSION", "log was cleaned up"),
    *("Requested table changes beginning with", "DELTA_STREAMING_CHECK_COLUMN_MAPPING_NO_SNAPSHOT", "None.get"),
)
MONTHS = 100 * 24 * 3600


class Kind(NamedTuple):
    """A kind of table, and of the stream that reads it."""

    layout: str
    properties: frozenset[str]
    reads: Reads
    sources: int
    v2: bool
    offset_log: str

    def create(self) -> str:
        """Return the SQL that creates the table."""
        properties = {name: PROPERTIES[name] for name in sorted(self.properties)}
        if self.reads == "change_feed":
            properties["delta.enableChangeDataFeed"] = "true"
        listed = ", ".join(f"'{name}' = '{value}'" for name, value in properties.items())
        return " ".join([CREATE, self.layout, f"TBLPROPERTIES ({listed})" if listed else ""])


KINDS = st.builds(
    Kind,
    layout=st.sampled_from(LAYOUTS),
    properties=st.frozensets(st.sampled_from(sorted(PROPERTIES)), max_size=3),
    reads=st.sampled_from(["appends", "appends", "rewrites", "rewrites", "change_feed"]),
    sources=st.sampled_from([1, 1, 2]),
    v2=st.booleans(),
    offset_log=st.sampled_from(["1", "2"]),
)


class History(RuleBasedStateMachine):
    """One table, its consumer, and what really happened to them."""

    spark: SparkSession
    folder: Path
    seen: Counter[str]

    @initialize(kind=KINDS)
    def start(self, kind: Kind) -> None:
        self.seen["histories"] += 1
        self.kind = kind._replace(v2=kind.v2 and kind.reads != "change_feed")  # DSv2 has no change feed yet
        self.has_vectors = "delta.enableDeletionVectors" in kind.properties
        self.at = self.folder / str(self.seen["histories"])
        self.table = str(self.at / "table")
        self.rows = self.columns = self.properties = self.checkpoints = 0
        self.statistics = True
        self.sql(self.kind.create())
        self.start_checkpoint()

    @rule(
        changes=st.lists(st.sampled_from(CHANGES), max_size=3),
        number=st.integers(1, 3),
        limit=st.sampled_from(LIMITS),
        kill=st.sampled_from([None, None, BEFORE_OFFSET, AFTER_OFFSET]),
        kill_in=st.sampled_from([0, 1, 1, 2, 3]),
        append_meanwhile=st.booleans(),
    )
    def change_and_consume(
        self,
        changes: list[str],
        number: int,
        limit: dict[str, str],
        kill: str | None,
        kill_in: int,
        append_meanwhile: bool,
    ) -> None:
        self.number = number
        for change in changes:
            getattr(self, change)()
            self.seen[change] += 1
        if limit not in ONE_FILE and self.a_file_comes_twice():
            limit = ONE_FILE[0]  # the truth has a file once for each batch
        self.consume(limit, kill, kill_in, append_meanwhile)

    # What happens to the table

    def create(self) -> None:
        shutil.rmtree(self.table)
        self.spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()  # type: ignore[union-attr]
        self.columns, self.statistics = 0, True
        self.sql(self.kind.create())

    def append(self) -> None:
        first, self.rows = self.rows, self.rows + 3 * self.number
        self.sql(
            f"INSERT INTO {{table}} (id, day) SELECT /*+ REPARTITION({self.number}) */ id, id % 3 "
            f"FROM range({first}, {self.rows})"
        )

    def append_without_statistics(self) -> None:
        if self.has_vectors:  # Delta needs the statistics for them
            return
        self.statistics = False
        self.spark.conf.set("spark.databricks.delta.stats.collect", "false")
        self.append()
        self.spark.conf.unset("spark.databricks.delta.stats.collect")

    def delete(self) -> None:
        self.sql(f"DELETE FROM {{table}} WHERE {['id % 5 = 0', 'id % 4 = 1', 'day = 1'][self.number - 1]}")

    def update(self) -> None:
        self.sql(f"UPDATE {{table}} SET day = day + 1 WHERE id % 7 = {self.number}")

    def merge(self) -> None:
        matched = "WHEN MATCHED THEN UPDATE SET day = 9" if self.number > 1 else ""
        self.sql(
            f"MERGE INTO {{table}} t USING (SELECT id FROM range({max(self.rows - 3, 0)}, {self.rows + 3})) s "
            f"ON s.id = t.id {matched} WHEN NOT MATCHED THEN INSERT (id, day) VALUES (id, 8)"
        )
        self.rows += 3

    def overwrite(self) -> None:
        self.sql(f"INSERT OVERWRITE {{table}} (id, day) SELECT id, 0 FROM range({self.number})")

    def optimize(self) -> None:
        self.sql("OPTIMIZE {table}")

    def restore(self) -> None:
        versions = self.versions()
        self.sql(f"RESTORE {{table}} TO VERSION AS OF {max(versions[-1] - self.number, versions[0])}")

    def set_property(self) -> None:
        self.properties += 1
        self.sql(f"ALTER TABLE {{table}} SET TBLPROPERTIES ('some.property' = '{self.properties}')")

    def add_column(self) -> None:
        self.sql(f"ALTER TABLE {{table}} ADD COLUMN column_{self.columns} STRING")
        self.columns += 1

    def vacuum(self) -> None:
        self.sql("VACUUM {table}")

    def clean_up_log(self) -> None:
        """Make all files of the log months old. The next commit writes a checkpoint and deletes those before it."""
        for file in self.log.iterdir():
            os.utime(file, times=(time.time() - MONTHS,) * 2)
        before = len(self.versions())
        self.sql("ALTER TABLE {table} SET TBLPROPERTIES ('delta.checkpointInterval' = '1')")
        self.seen["commits cleaned up"] += before + 1 - len(self.versions())

    def sql(self, statement: str) -> None:
        self.spark.sql(statement.format(table=f"delta.`{self.table}`"))

    @property
    def log(self) -> Path:
        return Path(self.table, "_delta_log")

    def versions(self) -> list[int]:
        return sorted(int(file.stem) for file in self.log.glob("*.json") if file.stem.isdigit())

    # What happens to the consumer

    def start_checkpoint(self) -> None:
        self.checkpoints += 1
        self.reader = Reader(
            spark=self.spark,
            checkpoint=self.at / f"checkpoint {self.checkpoints}",
            tables=[self.table] * self.kind.sources,
            reads=self.kind.reads,
            v2=self.kind.v2,
        )
        self.watchers = Watchers(self.reader, in_bucket=True)

    def consume(self, limit: dict[str, str], kill: str | None, kill_in: int, append_meanwhile: bool) -> None:
        """Run the consumer, and compare what it reads with what was shown before."""
        self.seen["runs"] += 1
        state = self.watchers.look(self.reader)
        reason = state.error.reason if state.error else None
        appended: list[Amount] = []
        planned = self.reader.batches("offsets")
        self.spark.conf.set("spark.sql.streaming.offsetLog.formatVersion", self.kind.offset_log)
        try:
            read = self.reader.run(
                limit,
                None if kill is None else kill_in,
                (lambda: appended.append(self.append_and_measure())) if append_meanwhile else None,
            )[self.table]
        except StreamingQueryException as error:
            self.check_failure(reason, str(error))
            return
        finally:
            self.spark.conf.unset("spark.sql.streaming.offsetLog.formatVersion")
        assert reason is None or reason in FIRST_READ
        if kill == BEFORE_OFFSET:
            self.forget_planned_batch(planned)
        after = self.watchers.look(self.reader)
        if after.error:
            assert after.error.reason == "no_batch"
            assert read == NOTHING
            return
        assert after.backlog
        assert after.backlog.amount or not self.log_is_whole()
        if kill is None and not appended:
            assert after.backlog == Backlog(self.versions()[-1], 0, None, NOTHING, 0)
            self.seen["runs to the end"] += 1
        if state.backlog and state.backlog.amount and after.backlog.amount:
            expected = state.backlog.amount
            for _ in range(self.kind.sources):
                for amount in appended:
                    expected = expected.plus(amount)
            self.compare(expected, read.plus(after.backlog.amount))

    def compare(self, shown: Amount, truth: Amount) -> None:
        rows_may_be_unknown = not self.statistics or self.kind.reads == "change_feed"
        assert shown.rows is not None or rows_may_be_unknown
        if shown.rows is None or truth.rows is None:
            shown, truth = shown._replace(rows=None), truth._replace(rows=None)
        assert shown == truth
        self.seen["backlogs compared"] += 1
        self.seen["files"] += truth.files
        self.seen["rows"] += truth.rows or 0

    def a_file_comes_twice(self) -> bool:
        """Whether the stream may read a file again: restored, with a deletion vector, or removed in a change feed."""
        paths: Counter[str] = Counter()
        for version in self.versions():
            changes = [
                (kind, action[kind]["path"])
                for action in map(json.loads, (self.log / f"{version:020d}.json").read_text().splitlines())
                for kind in ("add", "remove")
                if kind in action and action[kind]["dataChange"]
            ]
            if self.kind.reads == "appends" and any(kind == "remove" for kind, _ in changes):
                continue
            paths.update(path for kind, path in changes if kind == "add" or self.kind.reads == "change_feed")
        return any(count > 1 for count in paths.values())

    def append_and_measure(self) -> Amount:
        before, first = set(Path(self.table).rglob("*.parquet")), self.rows
        self.append()
        new = [file for file in set(Path(self.table).rglob("*.parquet")) - before if "_delta_log" not in file.parts]
        return Amount(len(new), sum(file.stat().st_size for file in new), self.rows - first)

    def check_failure(self, reason: str | None, error: str) -> None:
        """Check that the watcher has seen why the stream failed, and start with a new checkpoint as it advises."""
        if "DIFFERENT_DELTA_TABLE" in error:
            assert reason == "wrong_table"
        elif "None.get" in error and self.died_in_second_batch():
            reason = "Spark does not start again with offset log 2 after it died in its second batch"
        elif "DELTA_SCHEMA_CHANGED" in error and self.columns:
            reason = "Delta does not read across a column that was added and restored away"
        elif any(part in error for part in LOST):
            # A query that starts again looks again at the last batch that it has read, which the log may have lost.
            assert reason == "log_cleaned" or not self.log_is_whole()
        else:
            raise AssertionError(error)
        self.seen[f"failed: {reason or 'the last batch is no longer in the log'}"] += 1
        self.start_checkpoint()

    def forget_planned_batch(self, planned: set[int]) -> None:
        for batch in self.reader.unfinished() - planned:
            for name in (f"{batch}", f".{batch}.crc"):
                (self.reader.checkpoint / "offsets" / name).unlink()

    def died_in_second_batch(self) -> bool:
        """Whether Spark's isRepartitionBatch fails: in format 2, batch 0 has no number of shuffle partitions."""
        return self.kind.offset_log == "2" and self.reader.unfinished() == {1}

    def log_is_whole(self) -> bool:
        return self.versions()[0] == 0


@pytest.mark.slow
def test_backlog_in_random_histories_is_what_the_next_run_reads(
    spark: SparkSession,
    bucket: BucketServer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    pytestconfig: pytest.Config,
) -> None:
    for name in ("py4j", "delta_watch"):  # every kill and every reason, at length
        caplog.set_level(logging.CRITICAL, logger=name)
    histories, number = pytestconfig.getoption("--histories"), pytestconfig.getoption("--seed")
    History.spark, History.folder, History.seen = spark, tmp_path, Counter()
    try:
        run_histories(History, histories, number, steps=5)
    finally:
        print(f"\nSeed {number}:", ", ".join(f"{count} {what}" for what, count in History.seen.items()))
    assert History.seen["histories"] >= histories
    assert History.seen["backlogs compared"] > 0
