"""The head of a table and the lags of its consumers, by the files in its `_delta_log`."""

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from .backlog import Backlog, Reads, unread
from .commits import (
    Commit,
    Files,
    checkpoint_version,
    commit_name,
    commit_version,
    parse_checksum,
    parse_commit,
    snapshot,
)
from .errors import WatchError
from .offsets import Batch, Position, positions, table_ids
from .store import File, Folder


@dataclass
class _Known:
    """What is known of a table until it is created again."""

    head: int
    head_tag: str
    commits: dict[int, Commit] = field(default_factory=dict)
    snapshots: dict[int, Files | None] = field(default_factory=dict)
    backlogs: dict[tuple[tuple[Position, ...], Reads], Backlog] = field(default_factory=dict)
    present: set[int] = field(default_factory=set)  # versions seen in the log since the head was found
    needed: list[Position] = field(default_factory=list)  # the consumers' positions since then
    id: str | None = None
    id_at: int = -1  # the version up to which that id is certain
    retention: float | None = None  # seconds, as the same metadata says


@dataclass(frozen=True, slots=True)
class Head:
    """The last version of a table, and when it was committed, in Unix time; None while its file is unreadable.

    `retention` is after how many seconds its log may be cleaned up; None if never, or if that is unknown.
    """

    version: int
    timestamp: float | None
    retention: float | None = None


class Table:
    """A table. It reads each file of the log once. `find_head` comes first."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._log = folder.child("_delta_log")
        self._known: _Known | None = None

    def find_head(self) -> bool:
        """Find the last version.

        Returns:
            Whether it has changed since it was found last.

        Raises:
            WatchError: there is no table (`not_a_table`), or it cannot be read.
        """
        known = self._known
        if known:
            known.present.clear()
            known.needed.clear()
            # The known head comes first: if it is another file now, the table was created again.
            tags = self._log.tags_from(commit_name, known.head)
            if tags and tags[0] == known.head_tag:
                if len(tags) == 1:
                    return False
                known.head, known.head_tag = known.head + len(tags) - 1, tags[-1]
                known.backlogs.clear()
                return True
        self._known = None
        self._known = self._first_look()
        return True

    def head(self) -> Head:
        """Return the head that was found last."""
        known = self._found()
        try:
            timestamp = self._commits([known.head], known)[known.head].timestamp
        except WatchError as error:
            if error.reason in ("permission", "store"):
                raise
            timestamp = None
        return Head(known.head, timestamp, known.retention)

    def lag(self, batch: Batch, reads: Reads) -> tuple[Backlog, WatchError | None]:
        """Return the backlog of a consumer up to the head that was found last, and why a part of it is unknown.

        Args:
            batch: its last finished batch, read before the head was found.
            reads: what it does with commits that remove rows.

        Raises:
            WatchError: it does not read this table, or the log cannot be read.
        """
        known = self._found()
        table_id = self._id(batch, known)
        try:
            found = positions(batch, table_id)
        except WatchError as error:
            raise WatchError(error.reason, f"the query {error}") from None
        if (ahead := max(position.version for position in found)) > known.head + 1:
            raise WatchError(
                "wrong_table",
                f"the query has read version {ahead - 1}, but the table at {self._folder} ends at {known.head}, so it "
                "was restored from a copy; give the consumer a new checkpoint",
            )
        known.needed += found
        try:
            self._check_log(found, known)
            if (found, reads) not in known.backlogs:
                known.backlogs[found, reads] = unread(found, known.head, *self._unread(found, known), reads)
        except WatchError as error:
            return unread(found, known.head, None, {}, reads), error
        return known.backlogs[found, reads], None

    def forget(self) -> None:
        """Forget the commits that no consumer has needed since the head was found."""
        known = self._found()
        oldest = min((position.version for position in known.needed), default=known.head)
        if min(known.commits, default=oldest) < oldest:
            known.commits = {v: commit for v, commit in known.commits.items() if v >= oldest or v == known.head}
        inside = {position.version for position in known.needed if not position.in_commits}
        for version in known.snapshots.keys() - inside:
            del known.snapshots[version]

    def _found(self) -> _Known:
        if self._known is None:
            raise AssertionError("find_head comes first")
        return self._known

    def _first_look(self) -> _Known:
        # Delta names a version near the head, so that nobody needs to list a long log.
        try:
            hint = checkpoint_version(self._log.read("_last_checkpoint").content)
        except FileNotFoundError:
            hint = None
        tags = self._log.tags_from(commit_name, hint) if hint is not None else []
        if hint is None or not tags:
            versions = [version for version in map(commit_version, self._log.names()) if version is not None]
            if not versions:
                raise WatchError("not_a_table", f"there is no Delta table at {self._folder}; check the path")
            hint = max(versions)
            tags = self._log.tags_from(commit_name, hint)
            if not tags:
                raise WatchError("not_a_table", f"the table at {self._folder} is being deleted")
        return _Known(hint + len(tags) - 1, tags[-1])

    def _check_log(self, found: Collection[Position], known: _Known) -> None:
        """Forget the first commit that a consumer needs if the log no longer has it: the consumer has lost it too."""
        first = _first_commit(found)
        if first in known.commits and first < known.head and first not in known.present:
            if self._log.tag(commit_name(first)) is None:
                del known.commits[first]
                known.backlogs.clear()
            known.present.add(first)

    def _unread(self, found: Collection[Position], known: _Known) -> tuple[dict[int, Commit], dict[int, Files | None]]:
        first = _first_commit(found)
        commits = self._commits(range(known.head, first - 1, -1), known)
        for version in {position.version for position in found if not position.in_commits}:
            if version not in known.snapshots:
                known.snapshots[version] = self._snapshot(version)
            try:
                commits.update(self._commits([version], known))
            except WatchError as error:  # then only the commit's time is unknown
                if error.reason != "log_cleaned":
                    raise
        return commits, known.snapshots

    def _commits(self, versions: Collection[int], known: _Known) -> dict[int, Commit]:
        """Return these commits, and read those that are not known yet."""
        missing = [version for version in versions if version not in known.commits]
        for version, file in zip(missing, self._log.read_all(map(commit_name, missing)), strict=True):
            known.commits[version] = self._parse(version, file)
            known.present.add(version)
            commit = known.commits[version]
            if commit.table_id and version > known.id_at:
                known.id, known.id_at, known.retention = commit.table_id, version, commit.retention
        return {version: known.commits[version] for version in versions}

    def _parse(self, version: int, file: File | FileNotFoundError) -> Commit:
        if isinstance(file, FileNotFoundError):
            raise WatchError(
                "log_cleaned",
                f"version {version} is no longer in the log of {self._folder}, so the consumer cannot read it: give it "
                "a new checkpoint",
            )
        try:
            return parse_commit(file.content, file.modified)
        except WatchError as error:
            raise WatchError(error.reason, f"{self._log}/{commit_name(version)} {error}") from None

    def _snapshot(self, version: int) -> Files | None:
        """Return the files of the table at a version, or None if its log no longer starts at version 0."""

        def contents() -> Iterator[bytes]:
            for file in self._log.read_all(map(commit_name, range(version + 1))):
                if isinstance(file, FileNotFoundError):
                    raise file
                yield file.content

        try:
            return snapshot(contents())
        except FileNotFoundError:
            return None
        except WatchError as error:
            raise WatchError(error.reason, f"a file in {self._log} {error}") from None

    def _id(self, batch: Batch, known: _Known) -> str:
        """Return the id of the table, and look only as far as needed to see whether the consumer reads this table."""
        ids = table_ids(batch)
        self.head()  # its commit may set the id
        if known.id_at < known.head and known.id not in ids:
            self._find_id(ids, known)
        if known.id is None:
            if len(ids) > 1:
                raise WatchError(
                    "wrong_table",
                    f"the log of {self._folder} no longer has the table's id, and the query reads several tables; "
                    "change a property of the table, so that Delta writes its checksum again",
                )
            return ids.pop() if ids else ""
        return known.id

    def _find_id(self, wanted: set[str], known: _Known) -> None:
        # Delta writes a checksum with the table's metadata after each commit. Other writers may not.
        for version in (known.head, known.head - 1):
            try:
                table_id, retention = parse_checksum(self._log.read(f"{version:020d}.crc").content)
            except FileNotFoundError:
                continue
            if table_id and version > known.id_at:
                known.id, known.id_at, known.retention = table_id, version, retention
                return
        if known.id is None:
            with suppress(FileNotFoundError):
                first = self._commit(0, known)
                if first.table_id in wanted:
                    known.id, known.id_at, known.retention = first.table_id, 0, first.retention
                    return
        for version in range(known.head, known.id_at, -1):
            try:
                commit = self._commit(version, known)
            except FileNotFoundError:
                break
            if commit.table_id:
                known.id, known.retention = commit.table_id, commit.retention
                break
        known.id_at = known.head

    def _commit(self, version: int, known: _Known) -> Commit:
        """Return the commit of this version.

        Raises:
            FileNotFoundError: the commit is not in the log.
        """
        return known.commits.get(version) or self._parse(version, self._log.read(commit_name(version)))


def _first_commit(found: Collection[Position]) -> int:
    """Return the first version whose commit is needed to know what comes after these positions."""
    return min(position.version + (0 if position.in_commits else 1) for position in found)
