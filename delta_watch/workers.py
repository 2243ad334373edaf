"""Call many functions at once, each within a time limit. One that hangs holds up neither the others nor the caller."""

import time
from collections.abc import Callable, Hashable, Iterator
from itertools import count
from queue import Empty, SimpleQueue
from threading import Lock, Thread

Function = Callable[[], object]

PATIENCE = 0.25  # seconds without any result until more threads start


class TimedOut(Exception):
    """A call has not returned within the time limit. It is not repeated before it returns."""


class Workers:
    """Threads that call functions.

    Args:
        threads: how many calls to run at once. There are more threads only while some of them hang.
        time_limit: seconds for one call.
    """

    def __init__(self, threads: int, time_limit: float) -> None:
        self._threads, self._time_limit = threads, time_limit
        self._waiting: SimpleQueue[tuple[Hashable, int, Function]] = SimpleQueue()
        self._returned: SimpleQueue[tuple[Hashable, int, object]] = SimpleQueue()
        self._calls = count()
        self._running: dict[Hashable, tuple[int, float]] = {}  # the call, and when it started
        self._hanging: set[int] = set()  # calls
        self._expected: dict[Hashable, int] = {}
        self._late: SimpleQueue[tuple[Hashable, int]] = SimpleQueue()  # calls that are no longer waited for
        # A thread ends only under this lock. So either it takes what was queued last, or it no longer counts.
        self._lock = Lock()
        self._alive = 0

    def submit(self, key: Hashable, function: Function) -> None:
        """Queue a call, unless the last one with this key still hangs. Either way `results` yields one result."""
        call = self._expected[key] = next(self._calls)
        if key in self._running:
            self._late.put((key, call))
            return
        with self._lock:
            self._waiting.put((key, call, function))
            if self._alive < self._threads + len(self._hanging):
                self._add_threads(1)

    def results(self) -> Iterator[tuple[Hashable, object]]:
        """Yield the key of each call and what it returned, or the exception that it raised, or `TimedOut`.

        Meanwhile the caller may submit more calls.
        """
        while self._expected:
            while not self._late.empty():
                key, call = self._late.get()
                if self._expected.get(key) == call:
                    del self._expected[key]
                    yield key, TimedOut()
            try:
                key, call, result = self._returned.get(timeout=PATIENCE)
            except Empty:
                self._find_hanging()
                with self._lock:
                    self._add_threads(min(self._waiting.qsize(), self._alive))
                continue
            if self._expected.get(key) == call:
                del self._expected[key]
                yield key, result

    def _find_hanging(self) -> None:
        latest = time.monotonic() - self._time_limit
        for key, (call, started) in list(self._running.items()):
            if started < latest and call not in self._hanging:
                self._hanging.add(call)
                self._late.put((key, call))
                if key not in self._running:  # it has just returned
                    self._hanging.discard(call)

    def _add_threads(self, number: int) -> None:
        self._alive += number
        for _ in range(number):
            Thread(target=self._work, name="delta-watch", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._lock:
                try:
                    key, call, function = self._waiting.get_nowait()
                except Empty:
                    self._alive -= 1
                    return
            self._running[key] = call, time.monotonic()
            result: object
            try:
                result = function()
            except BaseException as error:  # a library in another language may raise one that is no Exception
                result = error
            del self._running[key]
            self._hanging.discard(call)
            self._returned.put((key, call, result))
