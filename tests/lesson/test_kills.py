"""Scripts killed at any moment: nothing is lost, nothing is left to clean up, and the next run pushes both gauges."""

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path
from random import Random
from threading import Event

from tutorial.script import STOPPED

from delta_watch.watcher import Consumer, Watcher
from demo.stack import wait_for
from tests.helpers.bucket_server import BucketServer, url
from tests.helpers.disk_truth import Disk
from tests.helpers.workspace import Process, SessionWorkspace, Workspace, errors, wait_until_equal

import psutil
import pytest

CREATE, WRITER, CONSUMER = "create_table.py", "visits_creator_job.py", "visits_consumer.py"


def children(process: Process) -> list[psutil.Process]:
    tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
    return [psutil.Process(int(child)) for task in tasks for child in task.read_text().split()]


def kill_java(process: Process) -> None:
    for child in children(process):
        child.kill()


KILLS: dict[str, Callable[[Process], None]] = {
    "killed": lambda process: os.killpg(process.pid, signal.SIGKILL),
    "Python killed in": lambda process: process.kill(),
    "Java killed in": kill_java,
    "Ctrl-C in": lambda process: os.killpg(process.pid, signal.SIGINT),
}


class Audit:
    """The checks after every run."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.disk = workspace.disk
        self.seen: Counter[str] = Counter()

    def gauge(self, name: str) -> float:
        return self.workspace.gauges().get(f"visits_{name}_version", -1)

    def version_read(self) -> int:
        version = self.disk.version_read()
        return -1 if version is None else version

    def rows_read_since(self, version: int) -> int:
        return self.disk.rows(range(version + 1, self.version_read() + 1))

    def kill(self, script: str, kill: str, after: float) -> None:
        """Start a script, kill it after some seconds, and check what it printed and left behind."""
        read_before = self.version_read()
        with self.workspace.start(script) as process:
            try:
                assert process.wait(after) == 0
                self.seen["ended before their kill"] += 1
            except subprocess.TimeoutExpired:
                java = children(process)
                KILLS[kill](process)
                self.seen[f"{kill} {script}"] += 1
                assert psutil.wait_procs(java, 60)[1] == []  # without its Python it may still end a commit
            out, err = process.communicate(timeout=120)
        assert "Traceback" not in err
        assert "\tat " not in err
        if process.returncode > 0:
            (line,) = errors(err)
            assert process.returncode == (130 if kill == "Ctrl-C in" else 1)
            assert line == STOPPED if kill == "Ctrl-C in" else line.startswith("Error: ")
            assert "LAG_DETECTOR_DEBUG" not in line
        assert self.gauge("writer") <= self.disk.last_version()
        assert self.gauge("reader") <= self.version_read()
        if script == CONSUMER:
            # It may also have printed rows of a batch that was not committed. The next run repeats that batch.
            assert out.count("|visit ") >= self.rows_read_since(read_before)

    def check_next_runs(self, workspace: Workspace) -> None:
        before, read_before = self.disk.last_version(), self.version_read()
        workspace.succeed(WRITER)
        assert self.gauge("writer") == self.disk.last_version() == before + 3
        assert [self.disk.rows(range(version, version + 1)) for version in range(1, before + 4)] == [3] * (before + 3)
        out = workspace.succeed(CONSUMER)
        assert self.gauge("reader") == self.version_read() == self.disk.last_version()
        assert out.count("|visit ") == self.rows_read_since(read_before)


class WatchAudit:
    """Compare what watchers show of a warehouse with the files before and after each round: of a disk and a bucket."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.watchers = cycle(
            Watcher({"visits": locate(disk.log.parent)}, [Consumer("consumer", "visits", locate(disk.checkpoint))])
            for locate in (str, url)
        )
        self.seen: Counter[str] = Counter()
        self.lags: set[int] = set()

    def round(self) -> int | None:
        """Make a round, check that its lag was true at some moment of it, and return it, in versions."""
        read_before, head_before = self.disk.version_read(), self.disk.last_version()
        watcher = next(self.watchers)
        watcher.run_round()
        head_after, read_after = self.disk.last_version(), self.disk.version_read()
        (table,) = watcher.states
        (state,), head = table.consumers, table.head
        assert head
        assert head_before <= head.version <= head_after
        self.seen["rounds"] += 1
        if state.error:
            assert read_before is None
            assert state.error.reason in ("missing", "no_batch")
            self.seen["rounds before the first batch"] += 1
            return None
        assert state.backlog
        assert read_after is not None
        read, lag = state.backlog.version, state.backlog.versions
        assert (-1 if read_before is None else read_before) <= read <= read_after
        assert 0 <= lag == head.version - read
        # Each version has a file with three rows, except the first one, which is read in any case.
        assert state.backlog.amount
        assert (state.backlog.amount.files, state.backlog.amount.rows) == (lag, 3 * lag)
        assert (state.backlog.since is None) == (lag == 0)
        self.seen["rounds in which something happened"] += (read_before, head_before) != (read_after, head_after)
        self.lags.add(lag)
        return lag

    def rounds(self, stopped: Event) -> None:
        """Make one round after the other, until it is stopped."""
        while not stopped.wait(0.05):  # a pause, so that the scripts get on too
            self.round()


@pytest.mark.slow
def test_scripts_when_killed_at_any_moment_lose_nothing(
    workspace: Workspace, session_workspace: SessionWorkspace, bucket: BucketServer, pytestconfig: pytest.Config
) -> None:
    """Meanwhile a watcher looks all the time, and shows no lag that was not true."""
    seed, kills = pytestconfig.getoption("--seed"), pytestconfig.getoption("--kills")
    random = Random(seed)
    audit, watch = Audit(workspace), WatchAudit(workspace.disk)
    session_workspace.succeed(CREATE)
    stopped = Event()
    with ThreadPoolExecutor() as pool:
        rounds = pool.submit(watch.rounds, stopped)
        try:
            start = time.monotonic()
            workspace.succeed(CONSUMER)
            usual = time.monotonic() - start
            while audit.seen.total() - audit.seen["ended before their kill"] < kills and not rounds.done():
                # Not before half a second: until then Python itself starts, and handles Ctrl-C in its own way.
                both = [
                    pool.submit(audit.kill, script, random.choice([*KILLS]), random.uniform(0.5, 1.6 * usual))
                    for script in (WRITER, CONSUMER)
                ]
                for one in both:
                    one.result()
                audit.check_next_runs(workspace)
        finally:
            stopped.set()
        rounds.result()
    assert watch.round() == 0
    assert len(watch.lags) > 2
    audit.seen += watch.seen
    print(f"\nSeed {seed}, nothing lost:", ", ".join(f"{count} {what}" for what, count in audit.seen.items()))


def test_consumer_when_killed_after_its_batch_has_printed_the_rows(
    workspace: Workspace, session_workspace: SessionWorkspace, warehouses: Path
) -> None:
    """The rows of a committed batch must not be lost in a buffer of the killed process."""
    workspace.copy(warehouses / "at_3")
    with workspace.start(CONSUMER) as process:
        wait_for("the batch to be committed", lambda: workspace.disk.batches("commits") or None, 120)
        KILLS["killed"](process)
        out, _ = process.communicate(timeout=60)
    assert out.count("|visit ") == 9
    assert workspace.gauges().get("visits_reader_version", 3) == 3  # it may have pushed already
    assert session_workspace.succeed(CONSUMER) == workspace.pushed("visits_reader_version", 3)


def test_writer_when_java_is_killed_between_commits_names_cause(
    workspace: Workspace, session_workspace: SessionWorkspace, warehouses: Path
) -> None:
    workspace.copy(warehouses / "empty")
    with workspace.start(WRITER) as process:
        wait_for("the first commit", lambda: workspace.disk.last_version() or None, 120)
        kill_java(process)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors(err) == [
        "Error: Spark's own process ended unexpectedly (killed, or out of memory); run the script again to continue."
    ]
    Audit(workspace).check_next_runs(session_workspace)


@pytest.mark.parametrize(
    ("settings", "program"),
    [
        pytest.param({}, "PythonGatewayServer", id="directly"),
        pytest.param(
            {"PYSPARK_SUBMIT_ARGS": "pyspark-shell"}, "SparkSubmit", id="by-the-launcher", marks=pytest.mark.launcher
        ),
    ],
)
def test_consumer_on_ctrl_c_while_java_starts_leaves_no_java_behind(
    workspace: Workspace, settings: dict[str, str], program: str
) -> None:
    with workspace.start(CONSUMER, **settings) as process:

        def starting_java() -> psutil.Process | None:
            started = [child for child in children(process) if child.name() == "java"]
            return next((java for java in started if program in " ".join(java.cmdline())), None)

        java = wait_for("Java to start", starting_java, 60)
        KILLS["Ctrl-C in"](process)
        out, err = process.communicate(timeout=60)
        wait_until_equal(java.is_running, False)
    assert (process.returncode, out, errors(err)) == (130, "", [STOPPED])
