"""Find the lags of all consumers, round by round."""

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import TimeoutError as StillWaiting
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Generic, NamedTuple, TypeVar

from .backlog import Backlog
from .catalog import Answer, CatalogTable, ask
from .checkpoint import Checkpoint, Progress
from .discovery import Consumer as Consumer
from .discovery import Discovery as Discovery
from .discovery import Text as Text
from .discovery import find_consumers
from .errors import DeltaWatchError, Reason, WatchError
from .lags import Lag, Lags
from .lake import Found, Lake, consumers_of, lake_path, table_name, walk
from .offsets import Batch, table_ids
from .store import Folder, open_folder, printable
from .table import Head
from .threads import Threads, TimedOut, event_loop

logger = logging.getLogger("delta_watch")
T = TypeVar("T")

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
        self.time_limit, self._discovery_interval, self._report = time_limit, discovery_interval, report
        self._catalogs = {
            name: each for name, each in tables.items() if isinstance(each, CatalogTable) and is_ours(name)
        }
        located = {name: each.location if isinstance(each, CatalogTable) else each for name, each in tables.items()}
        self.tables = {name: Lags(self._open(place)) for name, place in located.items() if place and is_ours(name)}
        self._configured_tables = self.tables
        self._is_ours, self._stale_after = is_ours, stale_after
        self.discoveries = tuple(discoveries)
        self.last_round: FinishedRound | None = None
        self.errors: defaultdict[str, Counter[tuple[str, Reason]]] = defaultdict(Counter)  # by table
        self.searches: Counter[str] = Counter()  # how many looks for consumers and tables ended, by result
        self.configured: defaultdict[str, list[Consumer]] = defaultdict(list)
        for consumer in consumers:
            self.configured[consumer.table].append(consumer)
        self._searches: defaultdict[str, list[_PatternSearch]] = defaultdict(list)  # by table
        places: defaultdict[str, list[Discovery]] = defaultdict(list)
        for discovery in self.discoveries:
            places[discovery.split()[0]].append(discovery)
        for place, group in places.items():
            search = _PatternSearch(place, tuple(group))
            for table in {discovery.table for discovery in group}:
                self._searches[table].append(search)
        self._lakes = [_LakeSearch(lake.path, lake) for lake in lakes]
        self._in_lakes: dict[str, list[Consumer]] = {}  # by table
        self.unmatched: dict[str, set[str]] = {}  # the ids of the tables that were not found, by checkpoint
        self._states: dict[str, TableState] = {}
        self._reported: defaultdict[str, dict[str, str]] = defaultdict(dict)
        self._stale: set[Consumer] = set()
        self._checkpoints: dict[str, Checkpoint] = {}
        self._threads = Threads()
        self._waiting_for: dict[str, None] = {}  # in this order

    @property
    def names(self) -> list[str]:
        """The names of all tables, also of those of which a catalog has not said yet where they are."""
        return [*self.tables, *(name for name in self._catalogs if name not in self.tables)]

    @property
    def states(self) -> list[TableState]:
        """What the last round has found out about each table. A table that was not looked at yet is missing."""
        return [self._states[name] for name in self.names if name in self._states]

    def run_round(self) -> None:
        """Look at everything once. The results of a table are there as soon as it was looked at."""
        start = time.monotonic()
        whole = asyncio.run_coroutine_threadsafe(_Round(self).run(), event_loop())
        while True:
            try:
                whole.result(None if self.time_limit else TIME_LIMIT)
                break
            except StillWaiting:
                first, *others = [*self._waiting_for] or ["an answer"]
                self._report(f"Waiting for {first}{f' and {len(others)} more' if others else ''} …")
        used = {consumer.checkpoint for table in self.names for consumer in self.consumers(table)} | self._candidates()
        self._checkpoints = {location: known for location, known in self._checkpoints.items() if location in used}
        self.last_round = FinishedRound(time.time(), time.monotonic() - start)

    def consumers(self, table: str) -> list[Consumer]:
        """Return the consumers of a table: the configured ones, then the discovered ones."""
        consumers = list(self.configured[table])
        if not (self._searches[table] or self._in_lakes):
            return consumers
        names = {consumer.name for consumer in consumers}
        checkpoints = {consumer.checkpoint for consumer in consumers}
        found = (search.found.get(each, ()) for search in self._searches[table] for each in search.discoveries)
        for consumer in chain(*found, self._in_lakes.get(table, ())):
            if consumer.table == table and consumer.checkpoint not in checkpoints:
                if consumer.name in names:  # found by another pattern
                    name = f"{consumer.name} ({open_folder(consumer.checkpoint)})"
                    consumer = Consumer(name, table, consumer.checkpoint, consumer.reads)
                consumers.append(consumer)
                checkpoints.add(consumer.checkpoint)
                names.add(consumer.name)
        return consumers

    def checkpoint(self, location: str) -> Checkpoint:
        """Return the checkpoint at a path or URL."""
        if location not in self._checkpoints:
            self._checkpoints[location] = Checkpoint(self._open(location))
        return self._checkpoints[location]

    async def search(self, table: str) -> WatchError | None:
        """Look for the consumers of a table if it is time to, and return why some may be missing.

        What is found after the time limit counts from the next round on. Consumers discovered before stay.
        """
        for search in self._searches[table]:
            await self._advance(search)
        return next((search.problem for search in self._searches[table] if search.problem), None)

    async def ask_catalog(self, name: str) -> Answer | WatchError | None:
        """Return what the catalog of a table says, or why it does not; None if the table has none.

        If only the catalog knows where the table is, the table is there from now on.
        """
        if (table := self._catalogs.get(name)) is None:
            return None
        try:
            answer = await ask(table, name, self.time_limit)
            folder, known = self._open(answer.location), self.tables.get(name)
            if known is None or str(known.table.folder) != str(folder):
                if table.location:
                    raise WatchError(
                        "catalog_location",
                        f"the catalog {table.catalog} has the table {table.name} at {folder}; correct location or name",
                    )
                found = {name: Lags(folder)}
                self.tables, self._configured_tables = self.tables | found, self._configured_tables | found
                for search in self._lakes:  # some of its consumers may be there
                    search.is_new = True
        except WatchError as error:
            return error
        except DeltaWatchError as error:
            return WatchError("catalog_location", f"the catalog has the table {table.name} elsewhere: {error}")
        return answer

    async def search_lakes(self) -> None:
        """Look for tables and consumers in the lakes if it is time to. What is late counts from the next round on."""
        await asyncio.gather(*map(self._advance, self._lakes))
        if any(search.is_new for search in self._lakes):
            await self._match()
        self._report_new("", {search.place: search.problem for search in self._lakes})

    @property
    def problems(self) -> list[WatchError]:
        """Why tables or consumers of the lakes may be missing."""
        return [search.problem for search in self._lakes if search.problem]

    async def _advance(self, search: "_Search[Any]") -> None:
        """Start a search if it is time to, and wait for it within the time limit."""
        if search.task is None and time.monotonic() >= search.due:
            search.task = asyncio.ensure_future(self._search(search))
            search.is_late = False
        if search.task:
            await asyncio.wait({search.task}, timeout=0 if search.is_late else self.time_limit)
            search.is_late = search.task is not None

    async def _search(self, search: "_Search[Any]") -> None:
        folder = self._open(search.place)
        found = await self.call(search.kind, search.place, folder, search.look(folder), None)
        search.task, search.is_late, search.due = None, False, time.monotonic() + self._discovery_interval
        self.searches["error" if isinstance(found, WatchError) else "success"] += 1
        if isinstance(found, WatchError):
            search.error, search.due = found, 0
        else:
            search.error = None
            search.keep(found)

    def _candidates(self) -> set[str]:
        """Return all checkpoints in the lakes."""
        return {lake_path(search.lake, path) for search in self._lakes for path in search.found.checkpoints}

    async def _match(self) -> None:
        """Give each checkpoint in the lakes to the tables that it reads, by their ids."""
        tables, known = dict(self._configured_tables), {str(each.table.folder): each for each in self.tables.values()}
        folders = {str(lags.table.folder) for lags in tables.values()}
        for search in self._lakes:
            search.is_new = False
            for path in search.found.tables:
                folder = self._open(lake_path(search.lake, path))
                name = table_name(search.lake, path)
                name = f"{name} ({folder})" if name in tables else name
                if str(folder) not in folders and self._is_ours(name):
                    folders.add(str(folder))
                    tables[name] = known.get(str(folder)) or Lags(folder)
        checkpoints = [(search, path) for search in self._lakes for path in search.found.checkpoints]

        async def ids_read(search: "_LakeSearch", path: str) -> set[str]:
            location = lake_path(search.lake, path)
            checkpoint = self.checkpoint(location)
            progress = await self.call(
                "the checkpoint", location, checkpoint.folder, checkpoint.progress(), self.time_limit
            )
            if isinstance(progress, WatchError):
                search.is_new = True  # look again in the next round
            elif isinstance(progress.last, Batch):
                return table_ids(progress.last)
            return set()

        read = await asyncio.gather(*(ids_read(*each) for each in checkpoints))
        wanted = set().union(*read)

        async def table_id(name: str, lags: Lags) -> str | WatchError | None:
            return await self.call("the table", name, lags.table.folder, lags.id(wanted), self.time_limit)

        found = zip(tables, await asyncio.gather(*(table_id(*each) for each in tables.items())), strict=True)
        names = {each: name for name, each in found if isinstance(each, str)}
        self.tables, self._in_lakes, unmatched = tables, defaultdict(list), {}
        for (search, path), ids in zip(checkpoints, read, strict=True):
            for consumer in consumers_of(search.lake, path, [names[each] for each in ids if each in names]):
                self._in_lakes[consumer.table].append(consumer)
            if missing := ids - names.keys():
                unmatched[lake_path(search.lake, path)] = missing
        for location, missing in unmatched.items():
            if self.unmatched.get(location) != missing:
                ids_text = " and ".join(sorted(missing))
                self._report(f"{printable(location)} reads the table with the id {ids_text}, which was not found")
        self.unmatched = unmatched

    async def call(
        self, kind: str, name: str, folder: Folder, coroutine: Coroutine[Any, Any, T], time_limit: float | None
    ) -> T | WatchError:
        """Return what a coroutine that reads this folder returns, or why it cannot."""
        place = f"{kind} {name}"
        self._waiting_for[place] = None
        try:
            return await (self._threads.run(place, coroutine, time_limit) if folder.is_local else coroutine)
        except WatchError as error:
            return error
        except TimedOut:
            limit = f"{self.time_limit:g} seconds"
            return WatchError("timeout", f"{place} has not answered within {limit}; check its store")
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # an unforeseen error costs one lag, not the watcher
            return WatchError("corrupt", f"{place} cannot be understood ({type(error).__name__}: {error})")
        finally:
            self._waiting_for.pop(place, None)

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
        self._report_new(table.name, errors)
        for consumer, reason in [key for key in count if key[0] not in errors]:
            del count[consumer, reason]

    def _report_new(self, owner: str, errors: Mapping[str, WatchError | None]) -> None:
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

    def _open(self, location: str) -> Folder:
        return open_folder(location, self.time_limit)


class _Search(ABC, Generic[T]):
    """A place that is looked at now and then."""

    place: str
    kind: str  # of the place
    due = 0.0
    task: "asyncio.Task[None] | None" = None
    is_late = False
    error: WatchError | None = None

    @abstractmethod
    def look(self, folder: Folder) -> Coroutine[Any, Any, T]:
        """Return what is there now."""

    @abstractmethod
    def keep(self, found: T) -> None:
        """Keep what was found."""

    @property
    def problem(self) -> WatchError | None:
        """Why something may be missing."""
        if self.is_late:
            return WatchError("timeout", f"{self.kind} {self.place} is still being read; wait")
        return self.error


@dataclass
class _PatternSearch(_Search[dict[Discovery, list[Consumer]]]):
    """A folder, the patterns in it, and what was found there."""

    place: str
    discoveries: tuple[Discovery, ...]
    found: dict[Discovery, list[Consumer]] = field(default_factory=dict)
    kind = "the folder with checkpoints"

    def look(self, folder: Folder) -> Coroutine[Any, Any, dict[Discovery, list[Consumer]]]:
        return find_consumers(folder, self.discoveries)

    def keep(self, found: dict[Discovery, list[Consumer]]) -> None:
        self.found = found


@dataclass
class _LakeSearch(_Search[Found]):
    """A lake, and what was found there."""

    place: str
    lake: Lake
    found: Found = field(default_factory=Found)
    is_new: bool = False  # whether it was not matched yet
    kind = "the lake"

    def look(self, folder: Folder) -> Coroutine[Any, Any, Found]:
        return walk(folder, self.lake, frozenset(self.found.checkpoints))

    def keep(self, found: Found) -> None:
        self.found, self.is_new = found, True
        self.error = next(iter(found.errors), None)
        if not (found.tables or found.checkpoints or found.errors):
            self.error = WatchError(
                "not_a_table", f"there is neither a Delta table nor a checkpoint in {self.place}; check the path"
            )


class _Round:
    """One round: the positions before the heads, so that no lag is negative.

    A table follows as soon as the checkpoints of its own consumers have been read.
    """

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._reading: dict[str, asyncio.Task[Progress | WatchError]] = {}

    async def run(self) -> None:
        await self._watcher.search_lakes()
        tables = iter(self._watcher.names)

        async def look_at_some() -> None:
            for table in tables:
                await self._look_at(table)

        await asyncio.gather(*(look_at_some() for _ in range(TABLES_AT_ONCE)))

    async def _look_at(self, table: str) -> None:
        not_listed, not_said = await self._watcher.search(table), None
        for attempt in range(ATTEMPTS):
            consumers = self._watcher.consumers(table)
            progress = await asyncio.gather(*(self._progress(consumer.checkpoint) for consumer in consumers))
            answer = await self._watcher.ask_catalog(table) if attempt == 0 else None
            not_said = answer if isinstance(answer, WatchError) else not_said
            moved, state = await self._state(table, dict(zip(consumers, progress, strict=True)), answer)
            if not (moved and state.consumers) or attempt == ATTEMPTS - 1:
                break
        self._watcher.publish(replace(state, error=state.error or not_said or not_listed))

    def _progress(self, location: str) -> "asyncio.Task[Progress | WatchError]":
        """Read a checkpoint, unless another table is waiting for it too."""
        reading = self._reading.get(location)
        if reading is None:
            checkpoint = self._watcher.checkpoint(location)
            reading = asyncio.ensure_future(
                self._watcher.call(
                    "the checkpoint", location, checkpoint.folder, checkpoint.progress(), self._watcher.time_limit
                )
            )
            self._reading[location] = reading
            reading.add_done_callback(lambda _: self._reading.pop(location))
        return reading

    async def _state(
        self, name: str, progress: dict[Consumer, Progress | WatchError], answer: Answer | WatchError | None
    ) -> tuple[bool, TableState]:
        """Return whether the head of a table has moved, and what is known of the table."""
        watcher, lags = self._watcher, self._watcher.tables.get(name)
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
            found = await watcher.call("the table", name, lags.table.folder, finding, watcher.time_limit)
        else:
            assert isinstance(answer, WatchError)
            found = answer
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
                watcher.checkpoint(consumer.checkpoint).is_behind = bool(state.backlog and state.backlog.versions)
        if isinstance(found, WatchError):
            return False, TableState(name, None, tuple(states), error)
        # A query that was discovered is no consumer if it does not read the table.
        configured, consumers = set(watcher.configured[name]), []
        for state in states:
            reason = state.error.reason if state.error else None
            if state.consumer in configured:
                consumers.append(state)
            elif reason not in (*NO_CONSUMER, "unknown_id"):
                consumers += [] if watcher.is_stale(state) else [state]
            elif reason == "unknown_id":
                error = state.error
        return found[0], TableState(name, found[1], tuple(consumers), error)
