"""What the log of a table says: its last version, its id, its commits. It reads each file of the log once."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from .checkpoint import PASSING, RARE
from .commits import (
    Checksum,
    Commit,
    CommitParser,
    Files,
    Metadata,
    Ratified,
    checkpoint_version,
    commit_name,
    commit_version,
    parse_checksum,
)
from .errors import WatchError
from .snapshots import find_in_checkpoint, read_snapshot
from .store import FILES_AT_ONCE, Folder, Tag

PERSISTS = "restore it if this persists"


@dataclass
class _Known:
    """What is known of a table until it is created again."""

    head: int
    tag: Tag  # of the head's file
    commits: dict[int, Commit] = field(default_factory=dict)
    snapshots: dict[int, Files | None] = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)  # versions seen in the log since the last look
    metadata: Metadata | None = None
    metadata_at: int = -1  # the version up to which that is certain
    is_catalog_managed: bool | None = None
    ratified: Ratified = field(default_factory=Ratified)


@dataclass(frozen=True, slots=True)
class Head:
    """The last version of a table.

    Args:
        version: its number.
        timestamp: when it was committed, in Unix time; None while its file is unreadable.
        retention: seconds after which a commit of the table may be cleaned up; None if never, or if unknown.
    """

    version: int
    timestamp: float | None
    retention: float | None = None


class Table:
    """A table. `find_head` comes first."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self._log = folder.child("_delta_log")
        self._known: _Known | None = None
        self._looks = 0

    @property
    def last(self) -> int:
        """The last version as it was found last: in the log, or ratified by the catalog."""
        return max(self._found.head, self._found.ratified.last)

    async def find_head(self) -> bool:
        """Find the last version.

        Returns:
            Whether it has changed since it was found last.

        Raises:
            WatchError: there is no table (`not_a_table`), or it cannot be read.
        """
        known, self._looks = self._known, self._looks + 1
        if known:
            # If the known head is another file now, the table was created again.
            tag, following = await self._log.tags([commit_name(known.head), commit_name(known.head + 1)])
            if tag == known.tag:
                if self.folder.is_local or following or self._looks % RARE == 0:
                    known.seen.clear()
                if following is None:
                    return False
                known.is_catalog_managed = None
                later = [following, *await self._log.tags_from(commit_name, known.head + 2)]
                known.head, known.tag = known.head + len(later), later[-1]
                return True
        self._known = None
        self._known = await self._first_look()
        return True

    def ratify(self, ratified: Ratified) -> bool:
        """Take what a catalog has said before `find_head`. Return whether the last version has changed."""
        last, self._found.ratified = self.last, ratified
        return self.last != last

    async def list_head(self) -> bool:
        """Find the last version by a listing: names may be known as missing for a while. Return whether it changed."""
        known = self._found
        versions = _versions(await self._log.names(f"{known.head + 1:020d}", ":"))
        if not versions:
            return False
        (tag,) = await self._log.tags([commit_name(versions[-1])])
        if tag is not None:
            known.head, known.tag = versions[-1], tag
        return tag is not None

    async def head(self) -> Head:
        """Return the head that was found last."""
        last = self.last
        try:
            timestamp = (await self.commits(last, last))[last].timestamp
        except WatchError as error:
            if error.reason in PASSING:
                raise
            timestamp = None
        metadata = self._found.metadata
        return Head(last, timestamp, metadata.retention if metadata else None)

    async def commits(self, first: int, last: int) -> dict[int, Commit]:
        """Return these commits, by version.

        Raises:
            WatchError: one of them is no longer in the log (`log_cleaned`), or cannot be read.
        """
        known = self._found
        if first in known.commits and first < known.head and first not in known.seen:
            # If it is gone, the consumer has lost it too.
            (tag,) = await self._log.tags([commit_name(first)])
            if tag is None:
                raise await self._missing(first)
            known.seen.add(first)
        missing = [version for version in range(last, first - 1, -1) if version not in known.commits]
        while missing:
            # Not all at once: the first one that is missing ends it.
            now, missing = missing[:FILES_AT_ONCE], missing[FILES_AT_ONCE:]
            errors: dict[int, BaseException] = {}
            for version, commit in zip(now, await self._log.at_once(self._read_commit, now), strict=True):
                if isinstance(commit, BaseException):
                    errors[version] = commit
                else:
                    known.commits[version] = commit
                    known.seen.add(version)
            for version, error in errors.items():
                raise await self._missing(version) if isinstance(error, FileNotFoundError) else error
        return {version: known.commits[version] for version in range(first, last + 1)}

    async def snapshot(self, version: int) -> Files | None:
        """Return the files of the table at a version, or None if its log no longer has them."""
        snapshots = self._found.snapshots
        if version not in snapshots:
            snapshots[version] = await read_snapshot(self._log, version, self._file_name)
        return snapshots[version]

    async def id(self, wanted: set[str]) -> str | None:
        """Return the table's id, or None if its log no longer has it.

        Args:
            wanted: the ids that a consumer reads. If the table had one of them before, it is looked for no further.
        """
        known = self._found
        await self.head()  # its commit may set the id
        if known.metadata_at < known.head and not (known.metadata and known.metadata.id in wanted):
            await self._find_metadata(wanted, known)
        return known.metadata.id if known.metadata else None

    async def is_catalog_managed(self) -> bool:
        """Return whether a catalog commits to the table, which may publish a version in the log later."""
        known = self._found
        if known.is_catalog_managed is None:
            protocol, version = (await self._checksum(known.head)).protocol, known.head
            while protocol is None and version >= 0:
                try:
                    protocol, version = (await self._commit(version, known)).protocol, version - 1
                except FileNotFoundError:
                    protocol, version = await find_in_checkpoint(self._log, version, "protocol"), -1
            known.is_catalog_managed = bool(protocol and protocol.catalog_managed)
        return known.is_catalog_managed

    def forget(self, first: int, snapshots: set[int]) -> None:
        """Forget the commits before this version and the other snapshots: no consumer needs them."""
        known = self._found
        if min(known.commits, default=first) < first:
            known.commits = {v: commit for v, commit in known.commits.items() if v >= first or v == self.last}
        for version in known.snapshots.keys() - snapshots:
            del known.snapshots[version]

    @property
    def _found(self) -> _Known:
        if self._known is None:
            raise AssertionError("find_head comes first")
        return self._known

    async def _first_look(self) -> _Known:
        # Delta names a version near the head, so that nobody needs to list a long log.
        try:
            hint = checkpoint_version((await self._log.read("_last_checkpoint")).content)
        except FileNotFoundError:
            hint = None
        names = await self._log.names("" if hint is None else f"{hint:020d}", ":")
        if hint is not None and not _versions(names):
            names = await self._log.names()
        versions = _versions(names)
        if not versions:
            raise WatchError("not_a_table", f"there is no Delta table at {self.folder}; check the path")
        # Only a checkpoint makes up for older versions.
        newest = max((int(name[:20]) for name in names if ".checkpoint" in name and name[:20].isdigit()), default=hint)
        needed = [version for version in versions if newest is None or version >= newest] or versions[-1:]
        first = needed[0] if newest is None else min(needed[0], newest + 1)
        if needed[-1] - first >= len(needed):
            raise WatchError(
                "corrupt", f"a version between {first} and {needed[-1]} is missing in {self._log}; {PERSISTS}"
            )
        (tag,) = await self._log.tags([commit_name(versions[-1])])
        if tag is None:
            raise WatchError("not_a_table", f"the table at {self.folder} is being deleted")
        return _Known(versions[-1], tag)

    async def _missing(self, version: int) -> WatchError:
        """Return why a commit cannot be read. Only a listing proves that it is gone."""
        if commit_name(version) in await self._log.names(f"{version:020d}", f"{version:020d}:"):
            return WatchError("store", f"{self._log}/{commit_name(version)} is listed, but cannot be read; wait")
        known = self._found
        if version > known.head:
            return WatchError("store", f"version {version} of {self.folder} is ratified, but cannot be read; wait")
        known.commits = {v: commit for v, commit in known.commits.items() if v > version}
        return WatchError(
            "log_cleaned",
            f"version {version} is no longer in the log of {self.folder}, so the consumer cannot read it: give it a "
            "new checkpoint",
        )

    def _file_name(self, version: int) -> str:
        """Return where a commit is in the log's folder."""
        known, name = self._found, commit_name(version)
        return known.ratified.files.get(version, name) if version > known.head else name

    async def _read_commit(self, version: int) -> Commit:
        parser, known, name = CommitParser(), self._found, self._file_name(version)
        try:
            commit = parser.commit(await self._log.read_lines(name, parser.add_line))
        except WatchError as error:
            if error.reason in PASSING:
                raise
            raise WatchError(error.reason, f"{self._log}/{name} {error}") from None
        if commit.metadata and version > known.metadata_at:
            known.metadata, known.metadata_at = commit.metadata, version
        return commit

    async def _commit(self, version: int, known: _Known) -> Commit:
        return known.commits.get(version) or await self._read_commit(version)

    async def _checksum(self, version: int) -> Checksum:
        try:
            return parse_checksum((await self._log.read(f"{version:020d}.crc")).content)
        except FileNotFoundError:
            return Checksum()

    async def _find_metadata(self, wanted: set[str], known: _Known) -> None:
        # Delta writes a checksum with the table's metadata after each commit. Other writers may not.
        for version in (known.head, known.head - 1):
            if version > known.metadata_at and (metadata := (await self._checksum(version)).metadata):
                known.metadata, known.metadata_at = metadata, version
                return
        with suppress(FileNotFoundError):
            first = None if known.metadata else (await self._commit(0, known)).metadata
            if first and first.id in wanted:
                return
        for version in range(known.head, known.metadata_at, -1):
            try:
                if (await self._commit(version, known)).metadata:
                    break
            except FileNotFoundError:
                known.metadata = await find_in_checkpoint(self._log, version, "metaData") or known.metadata
                break
        known.metadata_at = known.head


def _versions(names: Iterable[str]) -> list[int]:
    """Return the versions whose commits have these names, in order."""
    return sorted(version for version in map(commit_version, names) if version is not None)
