"""The lags of a table's consumers: from their last batches to positions, to the unread commits, to what is in these."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from .backlog import NOTHING, Backlog, Reads, unread
from .commits import Ratified
from .errors import WatchError
from .offsets import Batch, Position, positions, table_ids
from .store import Folder
from .table import Head, Table

# Seconds until a consumer that has read more than the log shows was not only faster than the store's cache.
AHEAD_LIMIT = 600
Lag = tuple[Backlog | None, WatchError | None]


class Lags:
    """The lags of the consumers of one table, by the keys of these consumers."""

    def __init__(self, folder: Folder) -> None:
        self.table = Table(folder)
        self._positions: dict[str, tuple[Position, ...]] = {}  # the last known ones
        self._backlogs: dict[tuple[tuple[Position, ...], Reads], Backlog] = {}
        self._ahead: dict[str, float] = {}  # since when a consumer has been ahead

    async def id(self, wanted: set[str]) -> str | None:
        """Return the table's id, see `Table.id`."""
        if await self.table.find_head():
            self._backlogs.clear()
        return await self.table.id(wanted)

    async def find(
        self, consumers: Mapping[str, tuple[Batch | None, Reads]], ratified: Ratified | None = None
    ) -> tuple[bool, Head, dict[str, Lag]]:
        """Return whether the head of the table has moved, the head, and the lag of each consumer.

        Args:
            consumers: the last finished batch of each one, read before this; None if it is unknown, and what it does
                with commits that remove rows.
            ratified: what the table's catalog has said after that, if it has.

        Raises:
            WatchError: the table cannot be read.
        """
        table = self.table
        moved = await table.find_head()
        if ratified:
            moved = table.ratify(ratified) or moved
        lags: dict[str, Lag] = {}
        found: dict[str, tuple[Position, ...]] = {}
        for key, (batch, _) in consumers.items():
            try:
                if batch:
                    found[key] = await self._find_positions(batch)
            except WatchError as error:
                lags[key] = None, error
        proven = max((position.proven for each in found.values() for position in each), default=-1)
        is_unpublished = False
        if proven > table.last:
            moved = await table.list_head() or moved
            is_unpublished = proven > table.last and await table.is_catalog_managed()
        if moved:
            self._backlogs.clear()
        # What an unknown consumer needed before, it will need again.
        self._positions = {key: each for key, each in (self._positions | found).items() if key in consumers}
        for key, each in found.items():
            try:
                self._check_ahead(key, each, is_unpublished)
                lags[key] = await self._lag(each, consumers[key][1], proven if is_unpublished else table.last)
            except WatchError as error:
                lags[key] = None, error
        head = Head(proven, None) if is_unpublished else await table.head()
        needed = [position for known in self._positions.values() for position in known]
        table.forget(
            min((position.version for position in needed), default=table.last),
            {position.version for position in needed if not position.in_commits},
        )
        return moved, head, lags

    async def _find_positions(self, batch: Batch) -> tuple[Position, ...]:
        ids = table_ids(batch)
        table_id = await self.table.id(ids)
        if table_id is None and ids:
            raise WatchError(
                "unknown_id",
                f"the log of {self.table.folder} no longer has the table's id; change a property of the table, so that "
                "Delta writes it again",
            )
        try:
            return positions(batch, table_id or "")
        except WatchError as error:
            raise WatchError(error.reason, f"the query {error}") from None

    def _check_ahead(self, key: str, found: Sequence[Position], is_unpublished: bool) -> None:
        read, table = max(position.proven for position in found), self.table
        if read <= table.last or is_unpublished:
            self._ahead.pop(key, None)
            return
        seconds = time.monotonic() - self._ahead.setdefault(key, time.monotonic())
        seen = f"the query has read version {read}, but the log of {table.folder} ends at {table.last}"
        if seconds < AHEAD_LIMIT:
            raise WatchError("ahead", f"{seen}; wait until the store shows the rest")
        raise WatchError(
            "wrong_table",
            f"{seen}, and this has lasted {AHEAD_LIMIT // 60} minutes; if the table was restored from a copy, give the "
            "consumer a new checkpoint",
        )

    async def _lag(self, found: tuple[Position, ...], reads: Reads, head: int) -> Lag:
        last = self.table.last
        first = min(position.version + (0 if position.in_commits else 1) for position in found)
        try:
            commits = await self.table.commits(first, last)  # also to see whether the log still has them
            if (backlog := self._backlogs.get((found, reads))) is None:
                snapshots = {}
                initial = {position.version for position in found if not position.in_commits}
                for version in initial:
                    if version > last:  # not published yet
                        continue
                    snapshots[version] = await self.table.snapshot(version)
                    try:
                        commits |= await self.table.commits(version, version)
                    except WatchError as error:  # then only the commit's time is unknown
                        if error.reason != "log_cleaned":
                            raise
                backlog = self._backlogs[found, reads] = unread(found, last, commits, snapshots, reads)
        except WatchError as error:
            self._backlogs.pop((found, reads), None)
            return unread(found, head, None, {}, reads), error
        if head == last:
            return backlog, None
        versions = head - backlog.version
        amount, rewrites = (None, None) if versions else (NOTHING, 0)
        return replace(backlog, versions=versions, amount=amount, rewrites=rewrites), None
