"""The files of a table at a version, from the newest checkpoint in its log and the commits after it.

Both are read from the newest to the oldest: what is said of a file first, holds.
"""

import re
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal, NamedTuple

from .checkpoint import PASSING
from .commits import Action, DataFile, Files, commit_name, corrupt_if_invalid, decode_action
from .errors import WatchError
from .parquet import parquet_actions
from .store import FILES_AT_ONCE, Folder

_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint(?:\.\d{10}\.(\d{10})|\.[\w-]{36})?\.(?:parquet|json)")


class LogCheckpoint(NamedTuple):
    """A checkpoint in a table's log: a version, and its files, or its single top file with sidecars."""

    version: int
    names: tuple[str, ...]


async def find_checkpoint(log: Folder, last: int) -> LogCheckpoint | None:
    """Return the newest complete checkpoint of a table up to this version, if its log has one."""
    found: defaultdict[tuple[int, int], list[str]] = defaultdict(list)  # by version and number of parts
    for name in await log.names("", f"{last + 1:020d}"):
        if match := _CHECKPOINT.fullmatch(name):
            found[int(match[1]), int(match[2] or 0)].append(name)
    complete = (
        LogCheckpoint(version, tuple(sorted(names) if parts else names[:1]))
        for (version, parts), names in found.items()
        if len(names) >= parts
    )
    return max(complete, default=None)


async def read_snapshot(log: Folder, version: int, file_name: Callable[[int], str] = commit_name) -> Files | None:
    """Return the files of a table at a version in the order of the initial snapshot.

    Returns:
        None if its log no longer starts at version 0, and has no checkpoint before this version.

    Raises:
        WatchError: a file of the log cannot be read.
    """
    checkpoint = await find_checkpoint(log, version)
    snapshot = _Snapshot()

    async def read(commit: int) -> "_Changes":
        changes = _Changes()
        await log.read_lines(file_name(commit), changes.add_line)
        return changes

    first = checkpoint.version + 1 if checkpoint else 0
    for last in range(version, first - 1, -FILES_AT_ONCE):
        commits = range(last, max(last - FILES_AT_ONCE, first - 1), -1)
        for commit, changes in zip(commits, await log.at_once(read, commits), strict=True):
            if isinstance(changes, FileNotFoundError):
                return None
            if isinstance(changes, WatchError) and changes.reason not in PASSING:
                raise WatchError(changes.reason, f"{log}/{file_name(commit)} {changes}")
            if isinstance(changes, BaseException):
                raise changes
            snapshot.add_commit(changes)
    for name in checkpoint.names if checkpoint else ():
        await log.in_thread(partial(snapshot.add_checkpoint, log, name))
    return await log.in_thread(snapshot.files)


async def find_in_checkpoint(log: Folder, last: int, kind: Literal["metaData", "protocol"]) -> Any:
    """Return the table's metadata or protocol from its newest checkpoint up to this version, None if it has none."""
    checkpoint = await find_checkpoint(log, last)
    for name in checkpoint.names if checkpoint else ():
        actions = (getattr(action, kind) for action in _actions(log, name))
        if found := await log.in_thread(partial(next, filter(None, actions), None)):
            return found
    return None


def _actions(log: Folder, name: str) -> Iterator[Action]:
    """Yield what a file of a checkpoint, and its sidecars, say of files and of the table."""
    try:
        with log.open(name) as file:
            for action in map(decode_action, file) if name.endswith(".json") else parquet_actions(file):
                yield action
                if action.sidecar:
                    yield from _actions(log.child("_sidecars"), action.sidecar.path.rpartition("/")[2])
    except WatchError:
        raise
    except Exception as error:  # Parquet's library has no class of its own
        raise WatchError("store", f"{log}/{name} cannot be read ({error}); restore it if this persists") from error


class _Changes:
    """What a commit says of the files: each one that it adds, None for each that it removes."""

    def __init__(self) -> None:
        self.files: dict[tuple[str, str], DataFile | None] = {}

    def add_line(self, line: bytes) -> None:
        with corrupt_if_invalid():
            action = decode_action(line)
            if action.add:
                self.files[action.add.key] = action.add
            elif action.remove:
                self.files[action.remove.key] = None


class _Snapshot:
    """The files of a table. They are in a database that uses the disk when they are too many for the memory."""

    def __init__(self) -> None:
        self._known: set[tuple[str, str]] = set()
        self._database = sqlite3.connect("", check_same_thread=False)
        self._database.execute("CREATE TABLE files (modified INTEGER, path BLOB, size INTEGER, rows INTEGER)")

    def add_commit(self, changes: _Changes) -> None:
        new = {key: file for key, file in changes.files.items() if key not in self._known}
        self._known |= new.keys()
        self._insert(file for file in new.values() if file)

    def add_checkpoint(self, log: Folder, name: str) -> None:
        files = (action.add for action in _actions(log, name))
        self._insert(file for file in files if file and file.key not in self._known)

    def _insert(self, files: Iterator[DataFile]) -> None:
        rows = ((file.modificationTime, file.path.encode(), file.size, file.rows) for file in files)
        self._database.executemany("INSERT INTO files VALUES (?, ?, ?, ?)", rows)

    def files(self) -> Files:
        files = Files()
        for size, rows in self._database.execute("SELECT size, rows FROM files ORDER BY modified, path"):
            files.append(size, rows)
        self._database.close()
        return files
