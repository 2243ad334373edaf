"""A watcher looks all the time while writers and consumers work and are killed: it never shows what was not true."""

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from random import Random
from threading import Event

from lag_detector.watch.watcher import Consumer, Watcher
from tests.truth import Disk
from tests.workspace import Workspace

import pytest

CREATE, WRITER, CONSUMER = "create_table.py", "visits_creator_job.py", "visits_consumer.py"
PAUSE = 0.01  # seconds between two rounds, so that the scripts get on too


class Audit:
    """Compare what a watcher shows with the files before and after each round."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.watcher = Watcher({"visits": str(disk.log.parent)}, [Consumer("consumer", "visits", str(disk.checkpoint))])
        self.seen: Counter[str] = Counter()
        self.lags: set[int] = set()

    def round(self) -> None:
        """Make a round and check that its lag was true at some moment of it."""
        read_before, head_before = self.disk.version_read(), self.disk.last_version()
        self.watcher.round()
        head_after, read_after = self.disk.last_version(), self.disk.version_read()
        (table,) = self.watcher.states
        (state,), head = table.consumers, table.head
        assert head
        assert head_before <= head.version <= head_after
        self.seen["rounds"] += 1
        if state.backlog is None:
            assert read_before is None
            assert state.error
            assert state.error.reason in ("missing", "no_batch")
            self.seen["rounds before the first batch"] += 1
            return
        assert state.error is None
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

    @contextmanager
    def running(self) -> Iterator["Future[None]"]:
        """Make one round after the other until the end of the `with` block, or until one is wrong."""
        stopped = Event()

        def rounds() -> None:
            while not stopped.wait(PAUSE):
                self.round()

        with ThreadPoolExecutor(1) as pool:
            thread = pool.submit(rounds)
            try:
                yield thread
            finally:
                stopped.set()
            thread.result()


def run_and_kill(workspace: Workspace, script: str, after: float) -> bool:
    """Start a script and kill it after some seconds. Return whether it had not ended before."""
    with workspace.start(script) as process:
        try:
            process.communicate(timeout=after)
            return False
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return True


@pytest.mark.slow
def test_lag_while_scripts_work_and_are_killed_was_true(workspace: Workspace, pytestconfig: pytest.Config) -> None:
    seed, kills = pytestconfig.getoption("--seed"), pytestconfig.getoption("--kills")
    random, killed = Random(seed), 0
    start = time.monotonic()
    workspace.succeed(CREATE)
    usual = time.monotonic() - start
    audit = Audit(Disk(workspace.warehouse))
    with audit.running() as rounds, ThreadPoolExecutor() as pool:
        while killed < kills and not rounds.done():
            both = [
                pool.submit(run_and_kill, workspace, script, random.uniform(0.4, 1.8) * usual)
                for script in (WRITER, CONSUMER)
            ]
            killed += sum(one.result() for one in both)
            list(pool.map(workspace.succeed, (WRITER, CONSUMER)))
    workspace.succeed(CONSUMER)
    audit.round()
    (state,) = audit.watcher.states
    assert state.consumers[0].backlog
    assert state.consumers[0].backlog.versions == 0
    assert state.head
    assert state.head.version == audit.disk.last_version()
    assert len(audit.lags) > 2
    audit.seen["kills"], audit.seen["different lags"] = killed, len(audit.lags)
    print(f"\nSeed {seed}, no wrong lag:", ", ".join(f"{count} {what}" for what, count in audit.seen.items()))
