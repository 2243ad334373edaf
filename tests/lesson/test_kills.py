"""Scripts killed at any moment: nothing is lost, nothing is left to clean up, and the next run pushes both gauges."""

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

from tutorial.script import STOPPED
from tutorial.visits import WRITER_VERSION

from demo.stack import wait_for
from lag_detector import Pushgateway
from tests.helpers.bucket_server import BucketServer
from tests.helpers.disk_truth import Disk, gauges
from tests.helpers.lesson_steps import Warehouses
from tests.helpers.watcher_audit import WatchAudit
from tests.helpers.workspace import SessionWorkspace, Workspace, errors, wait_until_equal

import psutil
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


KILLS = [kill_all, kill_python, kill_java, press_ctrl_c]


class Audit:
    """The checks after every run."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.disk = Disk(workspace.warehouse)
        self.seen: Counter[str] = Counter()

    def gauge(self, name: str) -> float:
        return gauges(self.workspace.stack.pushgateway).get(f"visits_{name}_version", -1)

    def killed(self) -> int:
        return self.seen.total() - self.seen["ended before their kill"]

    def version_read(self) -> int:
        version = self.disk.version_read()
        return -1 if version is None else version

    def kill(self, script: str, kill: Callable[[Process], None], after: float) -> None:
        """Start a script, kill it after some seconds, and check what it printed and left behind."""
        read_before = self.version_read()
        with self.workspace.start(script) as process:
            try:
                assert process.wait(after) == 0
                self.seen["ended before their kill"] += 1
            except subprocess.TimeoutExpired:
                java = [psutil.Process(pid) for pid in children(process)]
                kill(process)
                self.seen[f"{kill.__name__} {script}"] += 1
                assert psutil.wait_procs(java, 60)[1] == []  # without its Python it may still end a commit
            out, err = process.communicate(timeout=120)
        assert "Traceback" not in err
        assert "\tat " not in err
        lines = errors(err)
        if process.returncode > 0:
            assert process.returncode == (130 if kill is press_ctrl_c else 1)
            assert len(lines) == 1
            assert lines[0] == STOPPED if kill is press_ctrl_c else lines[0].startswith("Error: ")
            assert "LAG_DETECTOR_DEBUG" not in lines[0]
        assert self.gauge("writer") <= self.disk.last_version()
        assert self.gauge("reader") <= self.version_read()
        if script == CONSUMER:
            # It may also have printed rows of a batch that was not committed. The next run repeats that batch.
            assert rows(out) >= self.disk.rows(range(read_before + 1, self.version_read() + 1))

    def check_next_runs(self, workspace: Workspace) -> None:
        before = self.disk.last_version()
        workspace.succeed(WRITER)
        assert self.gauge("writer") == self.disk.last_version() == before + 3
        self.check_rows()
        read_before = self.version_read()
        out = workspace.succeed(CONSUMER)
        assert self.gauge("reader") == self.version_read() == self.disk.last_version()
        assert rows(out) == self.disk.rows(range(read_before + 1, self.version_read() + 1))

    def check_rows(self) -> None:
        """Check that every version has all of its rows."""
        for version in range(1, self.disk.last_version() + 1):
            assert self.disk.rows(range(version, version + 1)) == 3


def rows(printed: str) -> int:
    return len(re.findall(r"^\|visit \d-", printed, re.MULTILINE))


@pytest.mark.slow
def test_scripts_when_killed_at_any_moment_lose_nothing(
    workspace: Workspace, session_workspace: SessionWorkspace, bucket: BucketServer, pytestconfig: pytest.Config
) -> None:
    """Meanwhile a watcher looks all the time, and shows no lag that was not true."""
    seed = pytestconfig.getoption("--seed")
    random = Random(seed)
    audit = Audit(workspace)
    watch = WatchAudit(audit.disk)
    session_workspace.succeed(CREATE)
    with watch.running() as rounds, ThreadPoolExecutor() as pool:
        start = time.monotonic()
        workspace.succeed(CONSUMER)
        usual = time.monotonic() - start
        while audit.killed() < pytestconfig.getoption("--kills") and not rounds.done():
            # Not before half a second: until then Python itself starts, and handles Ctrl-C in its own way.
            both = [
                pool.submit(audit.kill, script, random.choice(KILLS), random.uniform(0.5, 1.6 * usual))
                for script in (WRITER, CONSUMER)
            ]
            for one in both:
                one.result()
            audit.check_rows()
            audit.check_next_runs(workspace)
    assert watch.round() == 0
    assert len(watch.lags) > 2
    audit.seen += watch.seen
    print(f"\nSeed {seed}, nothing lost:", ", ".join(f"{count} {what}" for what, count in audit.seen.items()))


def test_consumer_when_killed_after_its_batch_has_printed_the_rows(
    workspace: Workspace, session_workspace: SessionWorkspace, warehouses: Warehouses
) -> None:
    """The rows of a committed batch must not be lost in a buffer of the killed process."""
    workspace.copy(warehouses.at_3)
    disk = Disk(workspace.warehouse)
    with workspace.start(CONSUMER) as process:
        try:
            wait_for("the batch to be committed", lambda: disk.batches("commits") or None, 120)
        finally:
            kill_all(process)
        out, _ = process.communicate(timeout=60)
    assert rows(out) == 9
    assert gauges(workspace.stack.pushgateway).get("visits_reader_version", 3) == 3  # it may have pushed already
    assert session_workspace.succeed(CONSUMER) == f"visits_reader_version 3 pushed to {workspace.stack.pushgateway}\n"


def test_writer_when_java_is_killed_between_commits_names_cause(
    workspace: Workspace, session_workspace: SessionWorkspace, warehouses: Warehouses
) -> None:
    workspace.copy(warehouses.empty)
    audit = Audit(workspace)
    with workspace.start(WRITER) as process:
        try:
            wait_for("the first commit", lambda: audit.disk.last_version() or None, 120)
            kill_java(process)
            _, err = process.communicate(timeout=60)
        finally:
            with suppress(ProcessLookupError):
                kill_all(process)
    assert process.returncode == 1
    assert errors(err) == [
        "Error: Spark's own process ended unexpectedly (killed, or out of memory); run the script again to continue."
    ]
    audit.check_next_runs(session_workspace)


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
    workspace: Workspace, warehouses: Warehouses, settings: dict[str, str], program: str
) -> None:
    workspace.copy(warehouses.empty)
    with workspace.start(CONSUMER, **settings) as process:

        def starting_java() -> psutil.Process | None:
            for child in map(psutil.Process, children(process)):
                if child.name() == "java" and program in " ".join(child.cmdline()):
                    return child
            return None

        try:
            java = wait_for("Java to start", starting_java, 60)
            press_ctrl_c(process)
            out, err = process.communicate(timeout=60)
            wait_until_equal(java.is_running, False)
        finally:
            with suppress(ProcessLookupError):
                kill_all(process)
    assert process.returncode == 130
    assert errors(err) == [STOPPED]
    assert out == ""


def test_create_table_after_killed_run_completes_it(
    workspace: Workspace, session_workspace: SessionWorkspace, warehouses: Warehouses
) -> None:
    workspace.copy(warehouses.at_3)
    audit = Audit(workspace)
    Pushgateway(workspace.stack.pushgateway).push(WRITER_VERSION, 3)
    with workspace.start(CREATE) as process:
        try:
            wait_until_equal(lambda: gauges(workspace.stack.pushgateway), {})  # it deletes them before all else
        finally:
            kill_all(process)
    session_workspace.succeed(CREATE)
    assert audit.disk.last_version() == 0
    audit.check_next_runs(session_workspace)
