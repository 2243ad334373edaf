"""Scripts that are ended at any moment: nothing is lost, nothing to clean up, both gauges right after the next run."""

import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from random import Random

from demo.stack import wait_for
from lag_detector.cli import STOPPED
from tests.conftest import Reader, complaints
from tests.truth import Disk, gauges

import pytest

CREATE, WRITER, CONSUMER = "create_table.py", "visits_creator_job.py", "visits_consumer.py"
Process = subprocess.Popen[str]


def children(process: Process) -> list[int]:
    tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def kill_all(process: Process) -> None:
    os.killpg(process.pid, signal.SIGKILL)


def kill_python(process: Process) -> None:
    process.kill()


def kill_java(process: Process) -> None:
    for child in children(process):
        os.kill(child, signal.SIGKILL)


def press_ctrl_c(process: Process) -> None:
    os.killpg(process.pid, signal.SIGINT)


ENDS = [kill_all, kill_python, kill_java, press_ctrl_c]


class Ledger:
    """What every run is held to."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.disk = Disk(reader.warehouse)
        self.seen: Counter[str] = Counter()

    def shown(self, gauge: str) -> float:
        return gauges(self.reader.stack.pushgateway).get(f"visits_{gauge}_version", -1)

    def ended(self) -> int:
        return self.seen.total() - self.seen["ended by themselves"]

    def version_read(self) -> int:
        read = self.disk.version_read()
        return -1 if read is None else read

    def end(self, script: str, end: Callable[[Process], None], after: float) -> None:
        """Start a script, end it after some seconds, and check what it said and what it left behind."""
        read_before = self.version_read()
        with self.reader.start(script) as process:
            try:
                assert process.wait(after) == 0
                self.seen["ended by themselves"] += 1
            except subprocess.TimeoutExpired:
                end(process)
                self.seen[f"{end.__name__} {script}"] += 1
            out, err = process.communicate(timeout=120)
        assert "Traceback" not in err
        assert "\tat " not in err
        told = complaints(err)
        if process.returncode > 0:
            assert process.returncode == (130 if end is press_ctrl_c else 1)
            assert len(told) == 1
            assert told[0] == STOPPED if end is press_ctrl_c else told[0].startswith("Error: ")
            assert "LAG_DETECTOR_DEBUG" not in told[0]
        assert self.shown("writer") <= self.disk.last_version()
        assert self.shown("reader") <= self.version_read()
        if script == CONSUMER:
            # Rows of a batch that was not committed may be printed too, they come again.
            assert rows(out) >= self.disk.rows(range(read_before + 1, self.version_read() + 1))

    def next_runs_are_right(self) -> None:
        before = self.disk.last_version()
        self.reader.succeed(WRITER)
        assert self.shown("writer") == self.disk.last_version() == before + 3
        self.every_row_is_in_the_table()
        read_before = self.version_read()
        out = self.reader.succeed(CONSUMER)
        assert self.shown("reader") == self.version_read() == self.disk.last_version()
        assert rows(out) == self.disk.rows(range(read_before + 1, self.version_read() + 1))

    def every_row_is_in_the_table(self) -> None:
        for version in range(1, self.disk.last_version() + 1):
            assert self.disk.rows(range(version, version + 1)) == 3


def rows(printed: str) -> int:
    return len(re.findall(r"^\|visit \d-", printed, re.MULTILINE))


def test_scripts_that_are_ended_at_any_moment(alone: Reader, pytestconfig: pytest.Config) -> None:
    number = pytestconfig.getoption("--seed")
    chance = Random(number)
    ledger = Ledger(alone)
    begin = time.monotonic()
    alone.succeed(CREATE)
    usual = time.monotonic() - begin
    with ThreadPoolExecutor() as pool:
        while ledger.ended() < pytestconfig.getoption("--kills"):
            # From half a second on: before that, Python itself is starting and Ctrl-C is its own to answer.
            both = [
                pool.submit(ledger.end, script, chance.choice(ENDS), chance.uniform(0.5, 1.6 * usual))
                for script in (WRITER, CONSUMER)
            ]
            for one in both:
                one.result()
            ledger.every_row_is_in_the_table()
            ledger.next_runs_are_right()
    print(f"\nSeed {number}, nothing lost:", ", ".join(f"{count} {what}" for what, count in ledger.seen.items()))


def test_a_batch_that_is_noted_as_done_was_printed(alone: Reader) -> None:
    """Killed as soon as its batch is committed, the consumer must not have kept the rows to itself."""
    alone.succeed(CREATE)
    alone.succeed(WRITER)
    disk = Disk(alone.warehouse)
    with alone.start(CONSUMER) as process:
        try:
            wait_for("the batch to be committed", lambda: disk.batches("commits") or None, 120)
        finally:
            kill_all(process)
        out, _ = process.communicate(timeout=60)
    assert rows(out) == 9
    assert gauges(alone.stack.pushgateway).get("visits_reader_version", 3) == 3  # if it was quicker than we are
    assert alone.succeed(CONSUMER) == f"visits_reader_version 3 pushed to {alone.stack.pushgateway}\n"


def test_java_that_is_killed_between_two_commits(alone: Reader) -> None:
    alone.succeed(CREATE)
    ledger = Ledger(alone)
    with alone.start(WRITER) as process:
        try:
            wait_for("the first commit", lambda: ledger.disk.last_version() or None, 120)
            kill_java(process)
            _, err = process.communicate(timeout=60)
        finally:
            with suppress(ProcessLookupError):
                kill_all(process)
    told = complaints(err)
    assert process.returncode == 1
    assert told == [
        "Error: Spark's own process has ended before its time (killed, or out of memory); run it again to go on."
    ]
    ledger.next_runs_are_right()


def test_ctrl_c_while_java_starts_leaves_no_java_behind(alone: Reader) -> None:
    alone.succeed(CREATE)
    with alone.start(CONSUMER) as process:

        def java_starts() -> bool | None:
            commands = [Path(f"/proc/{child}/cmdline").read_text() for child in children(process)]
            return any("SparkSubmit" in command and "/java" in command for command in commands) or None

        try:
            wait_for("Java to start", java_starts, 60)
            press_ctrl_c(process)
            out, err = process.communicate(timeout=60)  # Java has the standard output too, until it ends
        finally:
            with suppress(ProcessLookupError):
                kill_all(process)
    assert process.returncode == 130
    assert complaints(err) == [STOPPED]
    assert out == ""


def test_a_creation_that_is_killed_is_repeated(alone: Reader) -> None:
    ledger = Ledger(alone)
    alone.succeed(CREATE)
    alone.succeed(WRITER)
    with alone.start(CREATE) as process:
        assert process.stderr is not None
        assert any("Creating" in line for line in process.stderr)
        kill_all(process)
    assert gauges(alone.stack.pushgateway) == {}
    alone.succeed(CREATE)
    assert ledger.disk.last_version() == 0
    ledger.next_runs_are_right()
