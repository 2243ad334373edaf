"""Which tables and which consumers there are: configured, found by patterns or in lakes, or located by a catalog."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Generic, TypeVar

from .calls import Calls
from .catalog import Answer, CatalogTable, ask
from .checkpoint import Checkpoint
from .discovery import Consumer, Discovery, find_consumers
from .errors import DeltaWatchError, WatchError
from .lags import Lags
from .lake import Found, Lake, consumers_of, lake_path, table_name, walk
from .offsets import Batch, table_ids
from .store import Folder, open_folder, printable

T = TypeVar("T")


class Inventory:
    """The tables and the consumers to watch. Searches look for more of them now and then.

    Args:
        calls: how to read folders.
        tables: path or URL of each table by its name, or where to ask its catalog.
        consumers: the configured consumers.
        discoveries: where to look for consumers.
        lakes: where to look for tables and for their consumers.
        interval: seconds between two searches of a place.
        is_ours: whether this watcher is responsible for the table of this name.
        report: called with one sentence when a query is found whose table is not.
    """

    def __init__(
        self,
        calls: Calls,
        tables: Mapping[str, str | CatalogTable],
        consumers: Iterable[Consumer],
        discoveries: Iterable[Discovery],
        lakes: Iterable[Lake],
        interval: float,
        is_ours: Callable[[str], bool],
        report: Callable[[str], None],
    ) -> None:
        self._calls, self._interval, self._is_ours, self._report = calls, interval, is_ours, report
        self._catalogs = {
            name: each for name, each in tables.items() if isinstance(each, CatalogTable) and is_ours(name)
        }
        located = {name: each.location if isinstance(each, CatalogTable) else each for name, each in tables.items()}
        self.tables = {name: Lags(calls.open(place)) for name, place in located.items() if place and is_ours(name)}
        self._configured_tables = self.tables
        self.configured: defaultdict[str, list[Consumer]] = defaultdict(list)  # by table
        for consumer in consumers:
            self.configured[consumer.table].append(consumer)
        self.discoveries = tuple(discoveries)
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
        self.searches: Counter[str] = Counter()  # how many searches ended, by result
        self.unmatched: dict[str, set[str]] = {}  # the ids of the tables that were not found, by checkpoint
        self._checkpoints: dict[str, Checkpoint] = {}

    @property
    def names(self) -> list[str]:
        """The names of all tables, also of those of which a catalog has not said yet where they are."""
        return [*self.tables, *(name for name in self._catalogs if name not in self.tables)]

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
            self._checkpoints[location] = Checkpoint(self._calls.open(location))
        return self._checkpoints[location]

    def forget(self) -> None:
        """Forget the checkpoints that are gone."""
        used = {consumer.checkpoint for table in self.names for consumer in self.consumers(table)}
        used |= {lake_path(search.lake, path) for search in self._lakes for path in search.found.checkpoints}
        self._checkpoints = {location: known for location, known in self._checkpoints.items() if location in used}

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
            answer = await ask(table, name, self._calls.time_limit)
            folder, known = self._calls.open(answer.location), self.tables.get(name)
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

    @property
    def problems(self) -> dict[str, WatchError | None]:
        """Why tables or consumers of each lake may be missing."""
        return {search.place: search.problem for search in self._lakes}

    async def _advance(self, search: "_Search[Any]") -> None:
        """Start a search if it is time to, and wait for it within the time limit."""
        if search.task is None and time.monotonic() >= search.due:
            search.task = asyncio.ensure_future(self._search(search))
            search.is_late = False
        if search.task:
            await asyncio.wait({search.task}, timeout=0 if search.is_late else self._calls.time_limit)
            search.is_late = search.task is not None

    async def _search(self, search: "_Search[Any]") -> None:
        folder = self._calls.open(search.place)
        found = await self._calls.run(search.kind, search.place, folder, search.look(folder), may_be_late=True)
        search.task, search.is_late, search.due = None, False, time.monotonic() + self._interval
        self.searches["error" if isinstance(found, WatchError) else "success"] += 1
        if isinstance(found, WatchError):
            search.error, search.due = found, 0
        else:
            search.error = None
            search.keep(found)

    async def _match(self) -> None:
        """Give each checkpoint in the lakes to the tables that it reads, by their ids."""
        tables, known = dict(self._configured_tables), {str(each.table.folder): each for each in self.tables.values()}
        folders = {str(lags.table.folder) for lags in tables.values()}
        for search in self._lakes:
            search.is_new = False
            for path in search.found.tables:
                folder = self._calls.open(lake_path(search.lake, path))
                name = table_name(search.lake, path)
                name = f"{name} ({folder})" if name in tables else name
                if str(folder) not in folders and self._is_ours(name):
                    folders.add(str(folder))
                    tables[name] = known.get(str(folder)) or Lags(folder)
        checkpoints = [(search, path) for search in self._lakes for path in search.found.checkpoints]

        async def ids_read(search: "_LakeSearch", path: str) -> set[str]:
            location = lake_path(search.lake, path)
            checkpoint = self.checkpoint(location)
            progress = await self._calls.run("the checkpoint", location, checkpoint.folder, checkpoint.progress())
            if isinstance(progress, WatchError):
                search.is_new = True  # look again in the next round
            elif isinstance(progress.last, Batch):
                return table_ids(progress.last)
            return set()

        read = await asyncio.gather(*(ids_read(*each) for each in checkpoints))
        wanted = set().union(*read)

        async def table_id(name: str, lags: Lags) -> str | WatchError | None:
            return await self._calls.run("the table", name, lags.table.folder, lags.id(wanted))

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
