"""Random histories of a real table and a real stream: after every run the gauge says what was really read.

A version counts as read when every row that it added was handed to the sink in a committed batch; a commit
without rows when all before it are. `make soak` goes through more histories, with a seed of its own.
"""

import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import create_table
import visits_consumer
import visits_creator_job
from lag_detector.gauges import READER_VERSION, WRITER_VERSION, forget, publish, pushgateway
from lag_detector.versions import last_read_version
from lag_detector.visits import TABLE, start_over
from tests.truth import Disk, gauges

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame, SparkSession

MONTHS = 100 * 24 * 3600
LIMITS = [{}, {"maxFilesPerTrigger": "1"}, {"maxFilesPerTrigger": "2"}, {"maxBytesPerTrigger": "1b"}]
OFFSET_MISSING, OFFSET_WRITTEN, BATCH_DONE, COMMIT_WRITTEN = "before offset", "offset", "batch", "commit"


class Cut(Exception):
    """The run ends here, as if it had been killed."""


class History(RuleBasedStateMachine):
    """One table, its consumer, and what really happened to them."""

    spark: SparkSession
    folder: Path
    seen: Counter[str]

    def __init__(self) -> None:
        super().__init__()
        self.seen["histories"] += 1
        self.disk = Disk(self.folder / str(self.seen["histories"]))
        os.environ["VISITS_WAREHOUSE"] = str(self.disk.warehouse)
        self.gateway = pushgateway()
        self.columns = 0
        self.rows = 0
        self.create()

    # What happens to the table

    @rule()
    def create(self) -> None:
        """Do what create_table.py does."""
        for gauge in (WRITER_VERSION, READER_VERSION):
            forget(self.gateway, gauge)
        self.spark.sql(f"DROP TABLE IF EXISTS {TABLE}")  # from the catalog; for the scripts every session has a new one
        self.spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()  # type: ignore[union-attr]
        start_over(self.spark)
        create_table.create_visits(self.spark)
        self.added: dict[str, int] = {}  # row -> the version that added it
        self.read: set[str] = set()
        self.committed: set[str] = set()  # what the checkpoint of today has handed over
        self.published: float = -1
        self.columns = 0

    @rule(files=st.integers(1, 3))
    def append(self, files: int) -> None:
        names = [f"visit {self.rows + row}" for row in range(files)]
        self.rows += files
        columns = ["id AS visit_id", "now() AS event_time", "id AS user_id", "'/' AS page"]
        columns += [f"'new' AS column_{column}" for column in range(self.columns)]
        visits = self.spark.createDataFrame([(name,) for name in names], "id STRING").selectExpr(*columns)
        visits.repartition(files).write.format("delta").mode("append").saveAsTable(TABLE)
        self.added |= dict.fromkeys(names, self.disk.last_version())

    @rule()
    def append_until_there_is_a_log_checkpoint(self) -> None:
        begin = self.checkpoints_of_the_log()
        while self.checkpoints_of_the_log() == begin:
            self.append(1)
        self.seen["log checkpoints"] += 1

    @rule()
    def optimize(self) -> None:
        self.change("OPTIMIZE {}")

    @rule()
    def vacuum(self) -> None:
        self.change("VACUUM {}")

    @precondition(lambda self: self.is_caught_up())
    @rule()
    def vacuum_at_once(self) -> None:
        with self.setting("spark.databricks.delta.retentionDurationCheck.enabled", "false"):
            self.change("VACUUM {} RETAIN 0 HOURS")

    @rule(interval=st.sampled_from([2, 5, 10]))
    def set_property(self, interval: int) -> None:
        self.change(f"ALTER TABLE {{}} SET TBLPROPERTIES ('delta.checkpointInterval' = '{interval}')")

    @rule()
    def add_column(self) -> None:
        self.change(f"ALTER TABLE {{}} ADD COLUMN column_{self.columns} STRING")
        self.columns += 1

    @precondition(lambda self: self.is_caught_up())
    @rule()
    def clean_up_the_log(self) -> None:
        """Let the log's files be old; the next log checkpoint removes those that nobody needs."""
        before = set(self.disk.log.glob("*.json"))
        for file in self.disk.log.iterdir():
            os.utime(file, times=(time.time() - MONTHS,) * 2)
        self.append_until_there_is_a_log_checkpoint()
        self.seen["log files cleaned up"] += len(before - set(self.disk.log.glob("*.json")))

    @rule()
    def writer(self) -> None:
        """Do what visits_creator_job.py does, with a name of its own for each row."""
        for _ in range(visits_creator_job.COMMITS):
            self.append(1)
        visits_creator_job.publish_writer_version(self.spark, self.gateway)
        assert gauges(self.gateway.address)[WRITER_VERSION] == self.disk.last_version()

    # What happens to the consumer

    @rule(
        limit=st.sampled_from(LIMITS),
        cut=st.sampled_from([None, None, OFFSET_MISSING, OFFSET_WRITTEN, BATCH_DONE, COMMIT_WRITTEN]),
        at=st.integers(0, 2),
        append_meanwhile=st.booleans(),
    )
    def consume(self, limit: dict[str, str], cut: str | None, at: int, append_meanwhile: bool) -> None:
        """Do what visits_consumer.py does; a run may be cut off in its first, second or third batch."""
        planned, done = self.disk.batches("offsets"), self.disk.batches("commits")
        handed_over: dict[int, list[str]] = {}

        def sink(visits: DataFrame, batch: int) -> None:
            here = len(handed_over) == at
            if here and cut in (OFFSET_MISSING, OFFSET_WRITTEN):
                raise Cut
            handed_over[batch] = [row.visit_id for row in visits.select("visit_id").collect()]
            if append_meanwhile and len(handed_over) == 1:
                self.append(1)
            if here and cut == BATCH_DONE:
                raise Cut

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(visits_consumer, "print_visits", sink)
            stream: Any = SimpleNamespace(readStream=self.spark.readStream.options(**limit))
            try:
                version = last_read_version(visits_consumer.consume_visits(stream))
                finished = True
            except StreamingQueryException as error:
                if "DELTA_MISSING_FILES_UNEXPECTED_VERSION" in str(error):
                    self.mend_the_checkpoint()
                    return
                if not cut or "Cut" not in str(error):
                    raise
                finished = False
        if cut == OFFSET_MISSING and not finished:
            for batch in self.disk.batches("offsets") - self.disk.batches("commits") - planned:
                for name in (f"{batch}", f".{batch}.crc"):
                    (self.disk.checkpoint / "offsets" / name).unlink()

        for batch in self.disk.batches("commits") - done:
            rows = handed_over[batch]
            assert len(set(rows)) == len(rows)
            assert not self.committed & set(rows), "a row of a committed batch came again"
            self.committed |= set(rows)
            self.read |= set(rows)
        self.seen["consumer runs"] += 1
        self.seen[f"cut off after {cut}"] += bool(cut and (not finished or cut == COMMIT_WRITTEN))
        if finished and cut != COMMIT_WRITTEN:
            assert version == self.truth()
            publish(self.gateway, READER_VERSION, version, "help")
            assert gauges(self.gateway.address)[READER_VERSION] == self.truth()

    def mend_the_checkpoint(self) -> None:
        """Do what the sentence of this error says: the log was cleaned up beyond what the checkpoint goes on from."""
        assert self.disk.versions()[0] > 0
        shutil.rmtree(self.disk.checkpoint)
        self.committed = set()
        self.seen["checkpoints too old for the log"] += 1

    # What must hold

    @invariant()
    def the_gauge_never_exceeds_the_truth_and_never_goes_back(self) -> None:
        published = gauges(self.gateway.address).get(READER_VERSION, -1)
        assert self.published <= published <= self.truth()
        self.published = published

    def truth(self) -> int:
        unread = [version for row, version in self.added.items() if row not in self.read]
        return min(unread) - 1 if unread else self.disk.last_version()

    def is_caught_up(self) -> bool:
        planned = self.disk.batches("offsets")
        return bool(planned) and planned == self.disk.batches("commits") and self.read == set(self.added)

    def checkpoints_of_the_log(self) -> int:
        return len(list(self.disk.log.glob("*.checkpoint.parquet")))

    def change(self, sql: str) -> None:
        before = self.disk.last_version()
        self.spark.sql(sql.format(TABLE))
        self.seen["commits without rows"] += self.disk.last_version() - before

    @contextmanager
    def setting(self, name: str, value: str) -> Iterator[None]:
        self.spark.conf.set(name, value)
        yield
        self.spark.conf.unset(name)


def test_the_gauge_says_what_was_read(
    spark: SparkSession,
    pushgateway_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    pytestconfig: pytest.Config,
) -> None:
    caplog.set_level(logging.CRITICAL, logger="py4j")
    monkeypatch.setenv("PUSHGATEWAY_URL", pushgateway_url)
    monkeypatch.setenv("VISITS_WAREHOUSE", "")
    wanted, number = pytestconfig.getoption("--histories"), pytestconfig.getoption("--seed")
    History.spark, History.folder, History.seen = spark, tmp_path, Counter()
    run_state_machine_as_test(
        seed(number)(History),
        settings=settings(
            max_examples=wanted,
            stateful_step_count=20,
            deadline=None,
            phases=[Phase.generate],  # a smaller history costs minutes to find
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(f"\nseed {number}:", ", ".join(f"{count} {what}" for what, count in sorted(History.seen.items())))
    assert History.seen["histories"] >= wanted
