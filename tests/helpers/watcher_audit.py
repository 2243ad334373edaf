"""A watcher that looks all the time while scripts work and are killed: it must never show what was not true."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle
from threading import Event

from delta_watch.watcher import Consumer, Watcher
from tests.helpers.bucket_server import url
from tests.helpers.disk_truth import Disk

PAUSE = 0.05  # seconds between two rounds, so that the scripts get on too


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
        if state.backlog is None:
            assert read_before is None
            assert state.error
            assert state.error.reason in ("missing", "no_batch")
            self.seen["rounds before the first batch"] += 1
            return None
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
        return lag

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
