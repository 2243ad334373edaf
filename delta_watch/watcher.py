"""Find the lags of all consumers, round by round."""

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain, compress
from typing import Annotated, Any, Literal, NamedTuple

from msgspec import Meta, Struct

from .backlog import Backlog, Reads
from .checkpoint import Checkpoint, Progress
from .errors import Reason, WatchError
from .store import is_local, open_folder
from .table import Head, Table
from .workers import TimedOut, Workers

logger = logging.getLogger("delta_watch")

Text = Annotated[str, Meta(pattern=r"\S")]
TIME_LIMIT = 10.0  # seconds
# Local files are so fast that more threads would only wait for each other.
THREADS_LOCAL, THREADS = 2, 16
# The reasons why a folder that matches a pattern is no consumer of the table.
NO_CONSUMER = ("missing", "not_delta", "wrong_table")
# If a table has new commits, read the positions and the head again. Only a head that did not move gives a true lag.
ATTEMPTS = 4


class Consumer(Struct, frozen=True, forbid_unknown_fields=True):
    """A consumer of a table.

    Args:
        name: its name, the label `consumer`.
        table: the name of the table, the label `table`.
        checkpoint: path or URL of the checkpoint of its query.
        reads: what it does with commits that remove rows.
    """

    name: Text
    table: Text
    checkpoint: Text
    reads: Reads = "appends"


class Discovery(Struct, frozen=True, forbid_unknown_fields=True):
    """Where to look for checkpoints. Each query found there that reads the table is a consumer.

    Args:
        table: the name of the table.
        checkpoints: a path or URL with wildcards, such as `/jobs/*/checkpoint`. What matches them names the consumer.
        reads: what these consumers do with commits that remove rows.
    """

    table: Text
    checkpoints: Text
    reads: Reads = "appends"

    def split(self) -> tuple[str, str]:
        """Return the folder to look in, and the pattern of the folders in it."""
        parts = self.checkpoints.rstrip("/").split("/")
        first = next((number for number, part in enumerate(parts) if _has_wildcard(part)), len(parts))
        return "/".join(parts[:first]) or "/", "/".join(parts[first:])

    def find(self) -> list[Consumer]:
        """Return a consumer for each folder that matches, whatever is in it."""
        folder, pattern = self.split()
        wildcards = [_has_wildcard(part) for part in pattern.split("/")]
        return [
            Consumer(
                "/".join(compress(path.split("/"), wildcards)), self.table, f"{folder.rstrip('/')}/{path}", self.reads
            )
            for path in open_folder(folder).matching_folders(pattern)
        ]


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
        tables: path or URL of each table by its name.
        consumers: the consumers; each pair of table and name once.
        discoveries: where to look for more consumers.
        time_limit: seconds until a table or checkpoint that does not answer is given up until the next round.
        report: called with one sentence when a lag becomes unknown, for another reason, or known again.

    Raises:
        DeltaWatchError: a path or URL has no supported form.
    """

    def __init__(
        self,
        tables: Mapping[str, str],
        consumers: Iterable[Consumer],
        discoveries: Iterable[Discovery] = (),
        time_limit: float = TIME_LIMIT,
        report: Callable[[str], None] = logger.warning,
    ) -> None:
        self.tables = {name: Table(open_folder(location)) for name, location in tables.items()}
        self.discoveries = tuple(discoveries)
        self.time_limit = time_limit
        self.last_round: FinishedRound | None = None
        self.errors: dict[str, Counter[tuple[str, Reason]]] = {name: Counter() for name in tables}
        self.configured: defaultdict[str, list[Consumer]] = defaultdict(list)
        for consumer in consumers:
            self.configured[consumer.table].append(consumer)
        self.discovered: dict[Discovery, list[Consumer]] = {}
        self._states: dict[str, TableState] = {}
        self._report = report
        self._reported: dict[str, dict[str, str]] = {name: {} for name in tables}
        checkpoints = {consumer.checkpoint for group in self.configured.values() for consumer in group}
        self._checkpoints: dict[str, Checkpoint] = {}
        locations = [*tables.values(), *checkpoints, *(discovery.split()[0] for discovery in self.discoveries)]
        local = {is_local(location) for location in locations}
        self.workers = Workers(THREADS if False in local else THREADS_LOCAL, time_limit)

    @property
    def states(self) -> list[TableState]:
        """What the last round has found out about each table. A table that was not looked at yet is missing."""
        return [self._states[name] for name in self.tables if name in self._states]

    def run_round(self) -> None:
        """Look at everything once. The results of a table are there as soon as it was looked at."""
        start = time.monotonic()
        _Round(self).run()
        used = {consumer.checkpoint for table in self.tables for consumer in self.consumers(table)}
        self._checkpoints = {location: known for location, known in self._checkpoints.items() if location in used}
        self.last_round = FinishedRound(time.time(), time.monotonic() - start)

    def consumers(self, table: str) -> list[Consumer]:
        """Return the consumers of a table: the configured ones, then the discovered ones."""
        consumers = list(self.configured[table])
        names = {consumer.name for consumer in consumers}
        checkpoints = {consumer.checkpoint for consumer in consumers}
        for consumer in chain.from_iterable(self.discovered.values()):
            if consumer.table == table and consumer.checkpoint not in checkpoints and consumer.name not in names:
                consumers.append(consumer)
                checkpoints.add(consumer.checkpoint)
                names.add(consumer.name)
        return consumers

    def checkpoint(self, location: str) -> Checkpoint:
        """Return the checkpoint at a path or URL."""
        if location not in self._checkpoints:
            self._checkpoints[location] = Checkpoint(open_folder(location))
        return self._checkpoints[location]

    def publish(self, table: TableState) -> None:
        """Make what is known of a table a result, count its errors, and report the new ones."""
        self._states[table.name] = table
        # Each consumer has the error of its table already, unless there is none.
        table_error = table.error if table.head or not table.consumers else None
        errors = {"": table_error} | {state.consumer.name: state.error for state in table.consumers}
        count, reported = self.errors[table.name], self._reported[table.name]
        for consumer, error in errors.items():
            name = f"{consumer} of {table.name}" if consumer else table.name
            if error:
                count[consumer, error.reason] += 1
                if reported.get(consumer) != str(error):
                    self._report(f"{name}: {error} ({error.reason})")
            elif consumer in reported:
                self._report(f"{name}: known again")
        self._reported[table.name] = {consumer: str(error) for consumer, error in errors.items() if error}
        for consumer, reason in [key for key in count if key[0] not in errors]:
            del count[consumer, reason]


def _has_wildcard(part: str) -> bool:
    """Return whether a part of a path stands for any number of names."""
    return any(character in part for character in "*?[")


_Key = tuple[Literal["the folder with checkpoints", "the checkpoint", "the table"], str | Discovery]


class _Round:
    """One round: the positions before the heads, so that no lag is negative.

    A table follows as soon as the checkpoints of its own consumers have been read.
    """

    def __init__(self, watcher: Watcher) -> None:
        self._watcher, self._workers = watcher, watcher.workers
        self._progress: dict[str, Progress | WatchError] = {}
        self._not_listed: dict[str, WatchError] = {}  # why consumers of a table may be missing
        self._attempts: Counter[str] = Counter()
        self._missing: Counter[str] = Counter()  # how many calls a table waits for
        self._waiting: dict[_Key, list[tuple[str, Callable[[str], None]]]] = {}  # the tables, and their next steps

    def run(self) -> None:
        for table in self._watcher.tables:
            calls: dict[_Key, Callable[[], object]] = {
                ("the folder with checkpoints", discovery): discovery.find
                for discovery in self._watcher.discoveries
                if discovery.table == table
            }
            self._after(calls, table, self._read_checkpoints)
        for key, result in self._workers.results():
            self._finish(key, result)  # type: ignore[arg-type]

    def _read_checkpoints(self, table: str) -> None:
        locations = {consumer.checkpoint for consumer in self._watcher.consumers(table)}
        calls: dict[_Key, Callable[[], object]] = {
            ("the checkpoint", location): self._watcher.checkpoint(location).progress for location in locations
        }
        self._after(calls, table, self._look_at_table)

    def _look_at_table(self, name: str) -> None:
        consumers = [(consumer, self._progress[consumer.checkpoint]) for consumer in self._watcher.consumers(name)]
        table, configured = self._watcher.tables[name], set(self._watcher.configured[name])
        self._workers.submit(("the table", name), partial(_look, table, consumers, configured))

    def _after(self, calls: Mapping[_Key, Callable[[], object]], table: str, next_step: Callable[[str], None]) -> None:
        """Submit these calls unless another table has, and take the next step when all of them have returned."""
        self._missing[table] = len(calls)
        for key, function in calls.items():
            if key not in self._waiting:
                self._waiting[key] = []
                self._workers.submit(key, function)
            self._waiting[key].append((table, next_step))
        if not calls:
            next_step(table)

    def _finish(self, key: _Key, result: Any) -> None:
        kind, subject = key
        error = self._error(key, result) if isinstance(result, BaseException) else None
        if isinstance(subject, Discovery):
            if error:  # the consumers discovered before stay
                self._not_listed[subject.table] = error
            else:
                self._watcher.discovered[subject] = result
        elif kind == "the checkpoint":
            self._progress[subject] = error or result
        else:
            self._finish_table(subject, error or result)
        for table, next_step in self._waiting.pop(key, ()):
            self._missing[table] -= 1
            if not self._missing[table]:
                next_step(table)

    def _finish_table(self, name: str, result: tuple[bool, Head, list[ConsumerState]] | WatchError) -> None:
        self._attempts[name] += 1
        if isinstance(result, WatchError):
            consumers = self._watcher.consumers(name)
            unknown = [_state(result, consumer, self._progress[consumer.checkpoint]) for consumer in consumers]
            self._watcher.publish(TableState(name, None, tuple(unknown), result))
            return
        head_moved, head, states = result
        if head_moved and states and self._attempts[name] < ATTEMPTS:
            self._read_checkpoints(name)
        else:
            self._watcher.publish(TableState(name, head, tuple(states), self._not_listed.get(name)))

    def _error(self, key: _Key, error: BaseException) -> WatchError:
        if isinstance(error, WatchError):
            return error
        kind, name = key
        subject = f"{kind} {name.split()[0] if isinstance(name, Discovery) else name}"
        if isinstance(error, TimedOut):
            limit = f"{self._watcher.time_limit:g} seconds"
            return WatchError("timeout", f"{subject} has not answered within {limit}; check its store")
        # An unforeseen error costs one lag, not the watcher.
        return WatchError("corrupt", f"{subject} cannot be understood ({type(error).__name__}: {error})")


def _look(
    table: Table, consumers: Iterable[tuple[Consumer, Progress | WatchError]], configured: Collection[Consumer]
) -> tuple[bool, Head, list[ConsumerState]]:
    """Return whether the head of a table has moved, the head, and the lags of the consumers that read the table."""
    head_moved = table.find_head()  # after the consumers' progress
    states = [_state(table, consumer, progress) for consumer, progress in consumers]
    table.forget()
    found = [
        state
        for state in states
        if state.consumer in configured or not (state.error and state.error.reason in NO_CONSUMER)
    ]
    return head_moved, table.head(), found


def _state(table: Table | WatchError, consumer: Consumer, progress: Progress | WatchError) -> ConsumerState:
    if isinstance(progress, WatchError):
        return ConsumerState(consumer, error=progress)
    if isinstance(progress.last, WatchError):
        return ConsumerState(consumer, progress, error=progress.last)
    try:
        if isinstance(table, WatchError):
            raise table
        return ConsumerState(consumer, progress, *table.lag(progress.last, consumer.reads))
    except WatchError as error:
        return ConsumerState(consumer, progress, error=error)
