"""Random histories of a real table and a real stream: after every run the gauge is the version that was really read.

A version has been read when the sink got each row that it and all versions before it added, in committed batches.
"""

import logging
import os
import shutil
from collections import Counter
from pathlib import Path

from tutorial.error_messages import error_message
from tutorial.settings import pushgateway
from tutorial.visits import READER_VERSION, TABLE, WRITER_VERSION

import visits_consumer
from lag_detector import last_commit
from tests.helpers.disk_truth import gauges
from tests.helpers.lesson_steps import Steps
from tests.helpers.random_histories import run_histories
from tests.helpers.stream_truth import SimulatedKill

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame, SparkSession

LIMITS = [{}, {"maxFilesPerTrigger": "1"}, {"maxFilesPerTrigger": "2"}, {"maxBytesPerTrigger": "1b"}]
CHANGES = [
    *("append", "append", "append", "append_until_log_checkpoint", "writer"),
    *("OPTIMIZE {}", "VACUUM {}", "vacuum_read_files", "set_property", "add_column", "clean_up_log", "create"),
]
BEFORE_OFFSET, AFTER_OFFSET, AFTER_BATCH, BEFORE_PUSH = "before offset", "after offset", "after batch", "before push"


class History(RuleBasedStateMachine):
    """One table, its consumer, and what really happened to them."""

    spark: SparkSession
    folder: Path
    seen: Counter[str]

    def __init__(self) -> None:
        super().__init__()
        self.seen["histories"] += 1
        self.steps = Steps(self.spark, self.folder / str(self.seen["histories"]))
        self.disk = self.steps.disk
        os.environ["VISITS_WAREHOUSE"] = str(self.disk.warehouse)
        self.gateway = pushgateway()
        self.rows = 0
        self.create()

    @rule(
        changes=st.lists(st.sampled_from(CHANGES), max_size=4),
        files=st.integers(1, 3),
        limit=st.sampled_from(LIMITS),
        kill=st.sampled_from([None, None, BEFORE_OFFSET, AFTER_OFFSET, AFTER_BATCH, BEFORE_PUSH]),
        at=st.sampled_from([0, 0, 1, 2]),
        append_meanwhile=st.booleans(),
    )
    def change_and_consume(
        self, changes: list[str], files: int, limit: dict[str, str], kill: str | None, at: int, append_meanwhile: bool
    ) -> None:
        self.files = files
        for change in changes:
            self.change(change) if change.endswith("{}") else getattr(self, change)()
            self.gauge_never_exceeds_truth_and_never_decreases()
        self.consume(limit, kill, at, append_meanwhile)

    # What happens to the table

    def create(self) -> None:
        """Do what create_table.py does."""
        for metric in (WRITER_VERSION, READER_VERSION):
            self.gateway.delete_metric(metric)
        self.steps.create()
        self.seen["tables"] += 1
        self.columns = 0
        self.added: dict[str, int] = {}  # row → the version that added it
        self.read: set[str] = set()
        self.committed: set[str] = set()  # the rows read since the checkpoint was last deleted
        self.pushed: float = -1

    def append(self) -> None:
        names = [f"visit {self.rows + row}" for row in range(self.files)]
        self.rows += self.files
        columns = ["id AS visit_id", "now() AS event_time", "id AS user_id", "'/' AS page"]
        columns += [f"'new' AS column_{column}" for column in range(self.columns)]
        visits = self.spark.createDataFrame([(name,) for name in names], "id STRING").selectExpr(*columns)
        visits.repartition(self.files).write.format("delta").mode("append").saveAsTable(TABLE)
        self.added |= dict.fromkeys(names, self.disk.last_version())
        self.seen["appends"] += 1

    def append_until_log_checkpoint(self) -> None:
        def checkpoints() -> set[Path]:
            return set(self.disk.log.glob("*.checkpoint.parquet"))

        before = checkpoints()
        while checkpoints() == before:
            self.append()
        self.seen["log checkpoints"] += 1

    def writer(self) -> None:
        """Do what visits_creator_job.py does, with another name for each row."""
        for _ in range(3):
            self.append()
        self.gateway.push_latest(WRITER_VERSION, lambda: last_commit(self.spark, TABLE))
        assert gauges(self.gateway.address)[WRITER_VERSION] == self.disk.last_version()

    def vacuum_read_files(self) -> None:
        if self.is_caught_up():
            check = "spark.databricks.delta.retentionDurationCheck.enabled"
            self.spark.conf.set(check, "false")
            self.change("VACUUM {} RETAIN 0 HOURS")
            self.spark.conf.unset(check)

    def set_property(self) -> None:
        self.change(f"ALTER TABLE {{}} SET TBLPROPERTIES ('delta.checkpointInterval' = '{3 * self.files}')")

    def add_column(self) -> None:
        self.change(f"ALTER TABLE {{}} ADD COLUMN column_{self.columns} STRING")
        self.columns += 1

    def clean_up_log(self) -> None:
        if self.is_caught_up():
            before = set(self.disk.versions())
            self.steps.clean_up_log()
            self.seen["commits cleaned up"] += len(before - set(self.disk.versions()))

    def change(self, sql: str) -> None:
        before = self.disk.last_version()
        self.spark.sql(sql.format(TABLE))
        self.seen["commits without rows"] += self.disk.last_version() - before

    # What happens to the consumer

    def consume(self, limit: dict[str, str], kill: str | None, at: int, append_meanwhile: bool) -> None:
        """Do what visits_consumer.py does. The run may be killed, in its first, second or third batch."""
        self.steps.v2 = not self.steps.v2  # each of Delta's sources continues where the other one stopped
        self.seen["consumer runs"] += 1
        planned, done = self.disk.batches("offsets"), self.disk.batches("commits")
        received: dict[int, list[str]] = {}

        def sink(visits: DataFrame, batch: int) -> None:
            here = len(received) == at
            if here and kill in (BEFORE_OFFSET, AFTER_OFFSET):
                raise SimulatedKill
            if append_meanwhile and not received:
                self.append()
            received[batch] = [row.visit_id for row in visits.select("visit_id").collect()]
            if here and kill == AFTER_BATCH:
                raise SimulatedKill

        version = None
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(visits_consumer, "print_visits", sink)
                version = self.steps.consume(**limit)
        except StreamingQueryException as error:
            if "log was cleaned up" in error_message(error):
                assert self.disk.versions()[0] > 0  # the version at which the checkpoint continues is gone
                shutil.rmtree(self.disk.checkpoint)
                self.committed = set()
                self.seen["checkpoints too old for the log"] += 1
                return
            if "SimulatedKill" not in str(error):
                raise
            self.seen[f"killed {kill}"] += 1
            if kill == BEFORE_OFFSET:
                for batch in self.disk.batches("offsets") - self.disk.batches("commits") - planned:
                    for name in (f"{batch}", f".{batch}.crc"):
                        (self.disk.checkpoint / "offsets" / name).unlink()

        for batch in self.disk.batches("commits") - done:
            rows = received[batch]
            assert len(set(rows)) == len(rows)
            assert not self.committed & set(rows), "a row of a committed batch was read twice"
            self.committed |= set(rows)
            self.read |= set(rows)
        if version is None:
            return
        assert version == self.truth()
        if kill == BEFORE_PUSH:
            self.seen[f"killed {kill}"] += 1
            return
        self.gateway.push(READER_VERSION, version)
        assert gauges(self.gateway.address)[READER_VERSION] == self.truth()
        self.seen["pushed versions"] += 1

    # What must hold

    @invariant()
    def gauge_never_exceeds_truth_and_never_decreases(self) -> None:
        pushed = gauges(self.gateway.address).get(READER_VERSION, -1)
        assert self.pushed <= pushed <= self.truth()
        self.pushed = pushed

    def truth(self) -> int:
        unread = [version for row, version in self.added.items() if row not in self.read]
        return min(unread) - 1 if unread else self.disk.last_version()

    def is_caught_up(self) -> bool:
        planned = self.disk.batches("offsets")
        return bool(planned) and planned == self.disk.batches("commits") and self.read == set(self.added)


@pytest.mark.slow
def test_reader_gauge_in_random_histories_is_version_read(
    spark: SparkSession,
    pushgateway_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    pytestconfig: pytest.Config,
) -> None:
    caplog.set_level(logging.CRITICAL, logger="py4j")  # it logs every kill at length
    monkeypatch.setenv("PUSHGATEWAY_URL", pushgateway_url)
    monkeypatch.setenv("VISITS_WAREHOUSE", "")
    histories, number = pytestconfig.getoption("--histories"), pytestconfig.getoption("--seed")
    History.spark, History.folder, History.seen = spark, tmp_path, Counter()
    run_histories(History, histories, number, steps=6)
    print(f"\nSeed {number}, no wrong value:", ", ".join(f"{count} {what}" for what, count in History.seen.items()))
    assert History.seen["histories"] >= histories
