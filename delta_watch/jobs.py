"""Do many jobs at once, each within a time limit. One that hangs holds up neither the others nor the caller."""

import time
from collections.abc import Callable, Hashable, Iterator
from itertools import count
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import NamedTuple

Function = Callable[[], object]

PATIENCE = 0.25  # seconds without an end of any job, until more threads start


class Failure(NamedTuple):
    """A job that raised an exception."""

    error: BaseException


class TimedOut:
    """A job that has not ended within the time limit. It is not started again before it ends."""


class Jobs:
    """Threads that do jobs.

    Args:
        threads: how many jobs to do at once. There are more threads only while some of them hang.
        time_limit: seconds for one job.
    """

    def __init__(self, threads: int, time_limit: float) -> None:
        self._threads, self._time_limit = threads, time_limit
        self._waiting: SimpleQueue[tuple[Hashable, int, Function]] = SimpleQueue()
        self._ended: SimpleQueue[tuple[Hashable, int, object]] = SimpleQueue()
        self._runs = count()
        self._running: dict[Hashable, tuple[int, float]] = {}  # the run, and when it started
        self._hanging: set[int] = set()  # runs
        self._expected: dict[Hashable, int] = {}
        self._late: SimpleQueue[tuple[Hashable, int]] = SimpleQueue()  # what is not waited for any longer
        self._lock = Lock()
        self._alive = 0

    def start(self, key: Hashable, function: Function) -> None:
        """Start a job, unless the last one with this key still hangs. `results` yields one result for it either way."""
        run = self._expected[key] = next(self._runs)
        if key in self._running:
            self._late.put((key, run))
            return
        self._waiting.put((key, run, function))
        if self._alive < self._threads + len(self._hanging):
            self._add_thread()

    def results(self) -> Iterator[tuple[Hashable, object]]:
        """Yield the key and the result of each job when it ends: what it returned, a `Failure`, or a `TimedOut`.

        Meanwhile the caller may start more jobs.
        """
        while self._expected:
            while not self._late.empty():
                key, run = self._late.get()
                if self._expected.get(key) == run:
                    del self._expected[key]
                    yield key, TimedOut()
            try:
                key, run, result = self._ended.get(timeout=PATIENCE)
            except Empty:
                self._look_for_hanging()
                for _ in range(min(self._waiting.qsize(), self._alive)):
                    self._add_thread()
                continue
            if self._expected.get(key) == run:
                del self._expected[key]
                yield key, result

    def _look_for_hanging(self) -> None:
        latest = time.monotonic() - self._time_limit
        for key, (run, started) in list(self._running.items()):
            if started < latest and run not in self._hanging:
                self._hanging.add(run)
                self._late.put((key, run))
                if key not in self._running:  # it has just ended
                    self._hanging.discard(run)

    def _add_thread(self) -> None:
        with self._lock:
            self._alive += 1
        Thread(target=self._work, name="watch", daemon=True).start()

    def _work(self) -> None:
        while True:
            try:
                key, run, function = self._waiting.get_nowait()
            except Empty:
                with self._lock:
                    self._alive -= 1
                return
            self._running[key] = run, time.monotonic()
            try:
                result = function()
            except BaseException as error:  # a library in another language may raise one that is no Exception
                result = Failure(error)
            del self._running[key]
            self._hanging.discard(run)
            self._ended.put((key, run, result))
