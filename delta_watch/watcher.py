"""Look at all tables and consumers, round by round."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from .backlog import Backlog, Reads
from .errors import Reason, WatchError
from .jobs import Failure, Jobs, TimedOut
from .query import Progress, Query
from .store import is_local, open_folder
from .table import Head, Table

logger = logging.getLogger("delta_watch")

TIME_LIMIT = 10.0  # seconds
# Local files are so fast that more threads would only wait for each other.
THREADS_LOCAL, THREADS = 2, 16
# What a folder that matches a pattern may be without being a consumer of the table.
NO_CONSUMER = ("missing", "not_delta", "wrong_table")
# While a table is being written, look again until nothing was committed in between: only then was a lag true.
LOOKS = 4


@dataclass(frozen=True, slots=True)
class Consumer:
    """A consumer of a table.

    Args:
        name: its name, the label `consumer`.
        table: the name of the table, the label `table`.
        checkpoint: path or URL of the checkpoint of its query.
        reads: what it does with commits that remove rows.
        discovered: whether only a pattern names it. Then it is no consumer of a table that it does not read.
    """

    name: str
    table: str
    checkpoint: str
    reads: Reads = "appends"
    discovered: bool = False


@dataclass(frozen=True, slots=True)
class Discovery:
    """Checkpoints to look for. Those of queries that read the table belong to its consumers.

    Args:
        table: the name of the table.
        folder: path or URL of the folder to look in.
        pattern: a pattern of folders in it, such as `*/checkpoint`. What matches the wildcards names the consumer.
        reads: what these consumers do with commits that remove rows.
    """

    table: str
    folder: str
    pattern: str
    reads: Reads = "appends"


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


class Round(NamedTuple):
    """A round: when it ended, in Unix time, and how many seconds it took."""

    ended: float
    seconds: float


class Watcher:
    """Look at tables and consumers. One thread calls `round`; any other may read the results.

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
        self.discoveries = {str(number): discovery for number, discovery in enumerate(discoveries)}
        self.time_limit = time_limit
        self.last_round: Round | None = None
        self.errors: dict[str, Counter[tuple[str, Reason]]] = {name: Counter() for name in tables}
        self._configured: dict[str, list[Consumer]] = {name: [] for name in tables}
        for consumer in consumers:
            self._configured[consumer.table].append(consumer)
        self._discovered: dict[str, list[Consumer]] = {}  # by the key in `discoveries`
        self._states: dict[str, TableState] = {}
        self._report = report
        self._reported: dict[str, dict[str, str]] = {name: {} for name in tables}
        checkpoints = {consumer.checkpoint for of_table in self._configured.values() for consumer in of_table}
        self._queries = {checkpoint: Query(open_folder(checkpoint)) for checkpoint in checkpoints}
        places = [*tables.values(), *checkpoints, *(discovery.folder for discovery in self.discoveries.values())]
        self.jobs = Jobs(THREADS_LOCAL if all(map(is_local, places)) else THREADS, time_limit)

    @property
    def states(self) -> list[TableState]:
        """What the last look at each table has found out. A table that was not looked at yet is missing."""
        return [self._states[name] for name in self.tables if name in self._states]

    def round(self) -> None:
        """Look at everything once. The results of each table are there as soon as it was looked at."""
        start = time.monotonic()
        _Round(self).run()
        in_use = {consumer.checkpoint for table in self.tables for consumer in self.consumers(table)}
        self._queries = {checkpoint: query for checkpoint, query in self._queries.items() if checkpoint in in_use}
        self.last_round = Round(time.time(), time.monotonic() - start)

    def consumers(self, table: str) -> list[Consumer]:
        """Return the consumers of a table: those that were configured, then those that were discovered."""
        consumers = list(self._configured[table])
        names = {consumer.name for consumer in consumers}
        checkpoints = {consumer.checkpoint for consumer in consumers}
        for discovered in self._discovered.values():
            for consumer in discovered:
                if consumer.table == table and consumer.checkpoint not in checkpoints and consumer.name not in names:
                    consumers.append(consumer)
                    checkpoints.add(consumer.checkpoint)
                    names.add(consumer.name)
        return consumers

    def query(self, checkpoint: str) -> Query:
        """Return the query with this checkpoint."""
        if checkpoint not in self._queries:
            self._queries[checkpoint] = Query(open_folder(checkpoint))
        return self._queries[checkpoint]

    def discover(self, key: str, folders: Iterable[str]) -> None:
        """Take over the folders that match a discovery."""
        of = self.discoveries[key]
        self._discovered[key] = [
            Consumer(
                name=matched_name(of.pattern, folder),
                table=of.table,
                checkpoint=f"{of.folder.rstrip('/')}/{folder}",
                reads=of.reads,
                discovered=True,
            )
            for folder in folders
        ]

    def publish(self, state: TableState) -> None:
        """Make what is known of a table a result, count its errors, and report those that are new."""
        self._states[state.name] = state
        of_no_consumer = state.error if state.head or not state.consumers else None
        errors = {"": of_no_consumer} | {of.consumer.name: of.error for of in state.consumers}
        count, reported = self.errors[state.name], self._reported[state.name]
        for consumer, error in errors.items():
            who = f"{consumer} of {state.name}" if consumer else state.name
            if error:
                count[consumer, error.reason] += 1
                if reported.get(consumer) != str(error):
                    self._report(f"{who}: {error} ({error.reason})")
            elif consumer in reported:
                self._report(f"{who}: known again")
        self._reported[state.name] = {consumer: str(error) for consumer, error in errors.items() if error}
        for consumer, reason in [key for key in count if key[0] not in errors]:
            del count[consumer, reason]


def matched_name(pattern: str, folder: str) -> str:
    """Return the parts of a folder's path that match a wildcard."""
    parts = zip(pattern.split("/"), folder.split("/"), strict=True)
    return "/".join(name for part, name in parts if has_wildcard(part))


def has_wildcard(part: str) -> bool:
    """Return whether a part of a path stands for any number of names."""
    return any(character in part for character in "*?[")


class _Look(NamedTuple):
    head: Head
    head_is_new: bool
    consumers: tuple[ConsumerState, ...]


_Key = tuple[Literal["discovery", "query", "table"], str]
_WHAT = {"discovery": "the folder with checkpoints", "query": "the checkpoint", "table": "the table"}


class _Round:
    """One round: first the checkpoints, then the tables, so that no lag is negative.

    Each table follows as soon as the checkpoints of its own consumers have been read.
    """

    def __init__(self, watcher: Watcher) -> None:
        self._watcher, self._jobs = watcher, watcher.jobs
        self._progress: dict[str, Progress | WatchError] = {}
        self._not_listed: dict[str, WatchError] = {}  # why consumers of a table may be missing
        self._looks: Counter[str] = Counter()
        self._missing: Counter[str] = Counter()  # how many jobs a table waits for
        self._waiting: dict[_Key, list[tuple[str, Callable[[str], None]]]] = {}  # who waits for a job, and what follows

    def run(self) -> None:
        for table in self._watcher.tables:
            keys = [key for key, of in self._watcher.discoveries.items() if of.table == table]
            self._after({("discovery", key): self._list(key) for key in keys}, table, self._read_checkpoints)
        for key, result in self._jobs.results():
            self._finish(key, result)  # type: ignore[arg-type]

    def _list(self, key: str) -> Callable[[], list[str]]:
        of = self._watcher.discoveries[key]
        return lambda: open_folder(of.folder).matching_folders(of.pattern)

    def _read_checkpoints(self, table: str) -> None:
        checkpoints = {consumer.checkpoint for consumer in self._watcher.consumers(table)}
        jobs: dict[_Key, Callable[[], object]] = {("query", c): self._watcher.query(c).look for c in checkpoints}
        self._after(jobs, table, self._look)

    def _look(self, table: str) -> None:
        of, progress = self._watcher.tables[table], self._progress
        consumers = [(consumer, progress[consumer.checkpoint]) for consumer in self._watcher.consumers(table)]
        self._jobs.start(("table", table), lambda: _look(of, consumers))

    def _after(self, jobs: Mapping[_Key, Callable[[], object]], table: str, then: Callable[[str], None]) -> None:
        """Start these jobs, unless they run already for another table, and go on with the table when all have ended."""
        self._missing[table] = len(jobs)
        for key, function in jobs.items():
            if key not in self._waiting:
                self._waiting[key] = []
                self._jobs.start(key, function)
            self._waiting[key].append((table, then))
        if not jobs:
            then(table)

    def _finish(self, key: _Key, result: Any) -> None:
        kind, name = key
        error = self._error(key, result)
        if kind == "table":
            self._finish_table(name, error or result)
            return
        if kind == "query":
            self._progress[name] = error or result
        elif error:  # those that were found before stay
            self._not_listed[self._watcher.discoveries[name].table] = error
        else:
            self._watcher.discover(name, result)
        for table, then in self._waiting.pop(key):
            self._missing[table] -= 1
            if not self._missing[table]:
                then(table)

    def _finish_table(self, name: str, result: _Look | WatchError) -> None:
        self._looks[name] += 1
        if isinstance(result, WatchError):
            unknown = tuple(
                _unknown(consumer, self._progress[consumer.checkpoint], result)
                for consumer in self._watcher.consumers(name)
            )
            self._watcher.publish(TableState(name, None, unknown, result))
        elif result.head_is_new and result.consumers and self._looks[name] < LOOKS:
            self._read_checkpoints(name)
        else:
            self._watcher.publish(TableState(name, result.head, result.consumers, self._not_listed.get(name)))

    def _error(self, key: _Key, result: object) -> WatchError | None:
        if isinstance(result, TimedOut):
            limit = f"{self._watcher.time_limit:g} seconds"
            return WatchError("timeout", f"{self._describe(key)} has not answered within {limit}; check its store")
        if isinstance(result, Failure):
            if isinstance(result.error, WatchError):
                return result.error
            # What nobody has thought of must not end the watcher.
            kind = type(result.error).__name__
            return WatchError("corrupt", f"{self._describe(key)} cannot be understood ({kind}: {result.error})")
        return None

    def _describe(self, key: _Key) -> str:
        kind, name = key
        return f"{_WHAT[kind]} {self._watcher.discoveries[name].folder if kind == 'discovery' else name}"


def _look(table: Table, consumers: Iterable[tuple[Consumer, Progress | WatchError]]) -> _Look:
    """Look at a table and return how far its consumers are behind. Their progress was read before."""
    head_is_new = not table.find_head()
    states: list[ConsumerState] = []
    for consumer, progress in consumers:
        state = _state(table, consumer, progress)
        if not (consumer.discovered and state.error and state.error.reason in NO_CONSUMER):
            states.append(state)
    table.forget()
    return _Look(table.head(), head_is_new, tuple(states))


def _state(table: Table, consumer: Consumer, progress: Progress | WatchError) -> ConsumerState:
    if isinstance(progress, WatchError) or isinstance(progress.last, WatchError):
        return _unknown(consumer, progress)
    try:
        lag = table.lag(progress.last, consumer.reads)
    except WatchError as error:
        return _unknown(consumer, progress, error)
    return ConsumerState(consumer, progress, lag.backlog, lag.error)


def _unknown(consumer: Consumer, progress: Progress | WatchError, error: WatchError | None = None) -> ConsumerState:
    if isinstance(progress, WatchError):
        return ConsumerState(consumer, error=progress)
    if isinstance(progress.last, WatchError):
        error = progress.last
    return ConsumerState(consumer, progress, None, error)
