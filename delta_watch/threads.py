"""Run coroutines that only read a local disk in threads, each within a time limit: a mount may hang."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Coroutine
from functools import cache
from threading import Lock, Thread
from typing import Any, TypeVar

T = TypeVar("T")
Call = tuple[str, Coroutine[Any, Any, Any], "asyncio.Future[Any]", float]

THREADS = 1  # Local files are so fast that more threads would only wait for each other.
PATIENCE = 0.25  # seconds without any result until there are twice as many


@cache
def event_loop() -> asyncio.AbstractEventLoop:
    """Return the loop of this process, which runs in a thread of its own."""
    loop = asyncio.new_event_loop()
    Thread(target=loop.run_forever, name="delta-watch", daemon=True).start()
    return loop


class TimedOut(Exception):
    """A call has not returned within the time limit. It is not repeated before it returns."""


class Threads:
    """Threads that run coroutines."""

    def __init__(self) -> None:
        self._waiting: deque[Call] = deque()
        self._running: dict[str, tuple[asyncio.Future[Any], float]] = {}  # until when to wait for it
        self._returned: deque[tuple[asyncio.Future[Any], Any]] = deque()
        self._watch: asyncio.Task[None] | None = None
        # A thread ends only under this lock. So either it takes what was queued last, or it no longer counts.
        self._lock = Lock()
        self._alive = 0

    async def run(self, place: str, coroutine: Coroutine[Any, Any, T], time_limit: float | None) -> T:
        """Return what a coroutine returns.

        Args:
            place: what it reads.
            coroutine: what never waits for another one.
            time_limit: seconds from its start; None for any time.

        Raises:
            TimedOut: it has not returned in time, or the last one at this place still has not.
        """
        if place in self._running:
            coroutine.close()
            raise TimedOut
        future: asyncio.Future[T] = event_loop().create_future()
        with self._lock:
            self._waiting.append((place, coroutine, future, time_limit or math.inf))
            if len(self._waiting) == 1:  # when all have been queued: two busy threads would only disturb each other
                event_loop().call_soon(self._start)
        return await future

    def _start(self) -> None:
        with self._lock:
            hanging = sum(future.done() for future, _ in self._running.values())
            if self._waiting and self._alive - hanging < THREADS:
                self._add_threads(1)
        if self._watch is None or self._watch.done():
            self._watch = asyncio.ensure_future(self._watch_threads())

    async def _watch_threads(self) -> None:
        """Give up what hangs, and add threads while nothing returns."""
        last = -1
        while any(not future.done() for future, _ in self._running.copy().values()) or self._waiting:
            await asyncio.sleep(PATIENCE)
            self._deliver()
            now = time.monotonic()
            for future, latest in self._running.copy().values():
                if now > latest and not future.done():
                    future.set_exception(TimedOut())
            with self._lock:
                if len(self._waiting) == last:
                    self._add_threads(min(last, self._alive))
                last = len(self._waiting)

    def _add_threads(self, number: int) -> None:
        self._alive += number
        for _ in range(number):
            Thread(target=self._work, name="delta-watch on a disk", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._alive -= 1
                    return
                place, coroutine, future, time_limit = self._waiting.popleft()
                self._running[place] = future, time.monotonic() + time_limit
            result: Any
            try:
                coroutine.send(None)
                result = AssertionError("it waits")
            except StopIteration as end:
                result = end.value
            except BaseException as error:  # a library in another language may raise one that is no Exception
                result = error
            with self._lock:
                del self._running[place]
                self._returned.append((future, result))
                if not self._waiting:
                    event_loop().call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        with self._lock:
            returned, self._returned = self._returned, deque()
        for future, result in returned:
            if future.done():
                continue
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)
