"""Find the lags of all consumers, round by round."""

import asyncio
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import TimeoutError as StillWaiting
from dataclasses import dataclass, replace
from typing import NamedTuple

from .backlog import Backlog
from .calls import Calls
from .catalog import Answer, CatalogTable
from .checkpoint import Progress
from .discovery import Consumer as Consumer
from .discovery import Discovery as Discovery
from .discovery import Text as Text
from .errors import Reason, WatchError
from .inventory import Inventory
from .lags import Lag
from .lake import Lake
from .offsets import Batch
from .table import Head
from .threads import event_loop

logger = logging.getLogger("delta_watch")

TIME_LIMIT = 10.0  # seconds
DISCOVERY_INTERVAL = 300.0  # seconds
TABLES_AT_ONCE = 256  # so that what waits for its turn takes no memory
# The reasons why a folder that matches a pattern is no consumer of the table.
NO_CONSUMER = ("missing", "not_delta", "wrong_table")
# If a table has new commits, read the positions and the head again. Only a head that did not move gives a true lag.
ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class ConsumerState:
    """What is known of a consumer. What is unknown is None, and `error` says why."""

    consumer: Consumer
    progress: Progress | None = None
    backlog: Backlog | None = None
    error: WatchError | None = None


@dataclass(frozen=True, slots=True)
class TableState:
    """What is known of a table and its consumers. `error` says why the head or some consumers are unknown."""

    name: str
    head: Head | None
    consumers: tuple[ConsumerState, ...]
    error: WatchError | None = None


class FinishedRound(NamedTuple):
    """A round that has ended: when, in Unix time, and how many seconds it took."""

    ended: float
    seconds: float


class Watcher:
    """Find the lags of consumers. One thread calls `run_round`; any other may read the results.

    Args:
        tables: path or URL of each table by its name, or where to ask its catalog.
        consumers: the consumers; each pair of table and name once.
        discoveries: where to look for more consumers.
        time_limit: seconds until a table or checkpoint that does not answer is given up until the next round; None to
            wait for it, and to report what the round waits for.
        discovery_interval: seconds between two looks for consumers and tables.
        lakes: where to look for tables and for their consumers.
        stale_after: seconds since its last batch after which a discovered consumer that is behind is left out; None for
            never.
        is_ours: whether this watcher is responsible for the table of this name.
        report: called with one sentence when a lag becomes unknown, for another reason, or known again.

    Raises:
        DeltaWatchError: a path or URL has no supported form.
    """

    def __init__(
        self,
        tables: Mapping[str, str | CatalogTable],
        consumers: Iterable[Consumer],
        discoveries: Iterable[Discovery] = (),
        time_limit: float | None = TIME_LIMIT,
        discovery_interval: float = DISCOVERY_INTERVAL,
        lakes: Iterable[Lake] = (),
        stale_after: float | None = None,
        is_ours: Callable[[str], bool] = lambda name: True,
        report: Callable[[str], None] = logger.warning,
    ) -> None:
        self.calls, self._report = Calls(time_limit), report
        self.inventory = Inventory(
            self.calls, tables, consumers, discoveries, lakes, discovery_interval, is_ours, report
        )
        self.last_round: FinishedRound | None = None
        self.errors: defaultdict[str, Counter[tuple[str, Reason]]] = defaultdict(Counter)  # by table
        self._states: dict[str, TableState] = {}
        self._reported: defaultdict[str, dict[str, str]] = defaultdict(dict)
        self._stale_after, self._stale = stale_after, set[Consumer]()

    @property
    def states(self) -> list[TableState]:
        """What the last round has found out about each table. A table that was not looked at yet is missing."""
        return [self._states[name] for name in self.inventory.names if name in self._states]

    def run_round(self) -> None:
        """Look at everything once. The results of a table are there as soon as it was looked at."""
        start = time.monotonic()
        whole = asyncio.run_coroutine_threadsafe(_Round(self).run(), event_loop())
        while True:
            try:
                whole.result(None if self.calls.time_limit else TIME_LIMIT)
                break
            except StillWaiting:
                first, *others = [*self.calls.waiting_for] or ["an answer"]
                self._report(f"Waiting for {first}{f' and {len(others)} more' if others else ''} …")
        self.inventory.forget()
        names = {*self.inventory.names, ""}
        for known in (self._states, self.errors, self._reported):
            for name in known.keys() - names:
                del known[name]
        self.last_round = FinishedRound(time.time(), time.monotonic() - start)

    def publish(self, table: TableState) -> None:
        """Make what is known of a table a result, count its errors, and report the new ones."""
        self._states[table.name] = table
        # Each consumer has the error of its table already, unless there is none.
        table_error = table.error if table.head or not table.consumers else None
        errors = {"": table_error} | {state.consumer.name: state.error for state in table.consumers}
        count = self.errors[table.name]
        for consumer, error in errors.items():
            if error:
                count[consumer, error.reason] += 1
        self.report_new(table.name, errors)
        for consumer, reason in [key for key in count if key[0] not in errors]:
            del count[consumer, reason]

    def report_new(self, owner: str, errors: Mapping[str, WatchError | None]) -> None:
        """Report the errors that are new, and those that are gone, of a table and its consumers, or of the lakes."""
        reported = self._reported[owner]
        for name, error in errors.items():
            subject = f"{name} of {owner}" if name and owner else name or owner
            if error and reported.get(name) != str(error):
                self._report(f"{subject}: {error} ({error.reason})")
            elif not error and name in reported:
                self._report(f"{subject}: known again")
        self._reported[owner] = {name: str(error) for name, error in errors.items() if error}

    def is_stale(self, state: ConsumerState) -> bool:
        """Return whether a discovered consumer is behind, and has not finished a batch for too long."""
        batch = state.progress.committed if state.progress else None
        if not (self._stale_after and batch and state.backlog and state.backlog.versions):
            return False
        if time.time() - batch < self._stale_after:
            self._stale.discard(state.consumer)
            return False
        if state.consumer not in self._stale:
            self._stale.add(state.consumer)
            self._report(f"{state.consumer.name} of {state.consumer.table}: left out, because it is stale")
        return True


class _Round:
    """One round: the positions before the heads, so that no lag is negative.

    A table follows as soon as the checkpoints of its own consumers have been read.
    """

    def __init__(self, watcher: Watcher) -> None:
        self._watcher, self._inventory = watcher, watcher.inventory
        self._reading: dict[str, asyncio.Task[Progress | WatchError]] = {}

    async def run(self) -> None:
        await self._inventory.search_lakes()
        self._watcher.report_new("", self._inventory.problems)
        tables = iter(self._inventory.names)

        async def look_at_some() -> None:
            for table in tables:
                await self._look_at(table)

        await asyncio.gather(*(look_at_some() for _ in range(TABLES_AT_ONCE)))

    async def _look_at(self, table: str) -> None:
        not_listed, not_said = await self._inventory.search(table), None
        for attempt in range(ATTEMPTS):
            consumers = self._inventory.consumers(table)
            progress = await asyncio.gather(*(self._progress(consumer.checkpoint) for consumer in consumers))
            answer = await self._inventory.ask_catalog(table) if attempt == 0 else None
            not_said = answer if isinstance(answer, WatchError) else not_said
            moved, state = await self._state(table, dict(zip(consumers, progress, strict=True)), answer)
            if not (moved and state.consumers) or attempt == ATTEMPTS - 1:
                break
        self._watcher.publish(replace(state, error=state.error or not_said or not_listed))

    def _progress(self, location: str) -> "asyncio.Task[Progress | WatchError]":
        """Read a checkpoint, unless another table is waiting for it too."""
        reading = self._reading.get(location)
        if reading is None:
            checkpoint = self._inventory.checkpoint(location)
            reading = asyncio.ensure_future(
                self._watcher.calls.run("the checkpoint", location, checkpoint.folder, checkpoint.progress())
            )
            self._reading[location] = reading
            reading.add_done_callback(lambda _: self._reading.pop(location))
        return reading

    async def _state(
        self, name: str, progress: dict[Consumer, Progress | WatchError], answer: Answer | WatchError | None
    ) -> tuple[bool, TableState]:
        """Return whether the head of a table has moved, and what is known of the table."""
        watcher, lags = self._watcher, self._inventory.tables.get(name)
        batches = {
            consumer.name: (
                each.last if isinstance(each, Progress) and isinstance(each.last, Batch) else None,
                consumer.reads,
            )
            for consumer, each in progress.items()
        }
        found: tuple[bool, Head, dict[str, Lag]] | WatchError
        if lags:
            finding = lags.find(batches, answer.ratified if isinstance(answer, Answer) else None)
            found = await watcher.calls.run("the table", name, lags.table.folder, finding)
        is_gone = not lags or (isinstance(found, WatchError) and found.reason == "not_a_table")
        if is_gone and isinstance(answer, WatchError):
            found = answer  # it says more
        states, error = [], found if isinstance(found, WatchError) else None
        for consumer, each in progress.items():
            if isinstance(each, WatchError):
                states.append(ConsumerState(consumer, error=each))
            elif isinstance(each.last, WatchError):
                states.append(ConsumerState(consumer, each, error=each.last))
            elif isinstance(found, WatchError):
                states.append(ConsumerState(consumer, each, error=found))
            else:
                states.append(state := ConsumerState(consumer, each, *found[2][consumer.name]))
                self._inventory.checkpoint(consumer.checkpoint).is_behind = bool(
                    state.backlog and state.backlog.versions
                )
        if isinstance(found, WatchError):
            return False, TableState(name, None, tuple(states), error)
        # A query that was discovered is no consumer if it does not read the table.
        configured, consumers = set(self._inventory.configured[name]), []
        for state in states:
            reason = state.error.reason if state.error else None
            if state.consumer in configured:
                consumers.append(state)
            elif reason not in (*NO_CONSUMER, "unknown_id"):
                consumers += [] if watcher.is_stale(state) else [state]
            elif reason == "unknown_id":
                error = state.error
        return found[0], TableState(name, found[1], tuple(consumers), error)
