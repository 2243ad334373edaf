"""What the commits in a table's `_delta_log` say: the files that each one adds, and whether it removes rows."""

import json
import re
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from .errors import WatchError

UNKNOWN = -1  # rows of a file without statistics

# These actions say nothing about files. To skip them without parsing saves a tenth of the time.
_OTHER_ACTIONS = ('{"protocol"', '{"txn"', '{"domainMetadata"')
_NUM_RECORDS = re.compile(r'\s*\{\s*"numRecords"\s*:\s*(\d+)\s*[,}]')


@dataclass(frozen=True, slots=True)
class Files:
    """The files of a commit that a stream reads, in the order of its indexes.

    Args:
        sizes: bytes of each file.
        rows: rows of each file less those that its deletion vector marks, or UNKNOWN.
    """

    sizes: "array[int]"
    rows: "array[int]"


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit of a Delta table.

    Args:
        timestamp: Unix time: the in-commit timestamp if there is one, else the file's modification time, as Delta does.
        added: the added files, without those that only rearrange rows (`dataChange: false`).
        changed: what a stream of the change feed reads; the same object as `added` if nothing was removed.
        rewrites: whether the commit also removes rows.
        table_id: the table's id, if the commit sets the table's metadata.
    """

    timestamp: float
    added: Files
    changed: Files
    rewrites: bool
    table_id: str | None


class SnapshotFile(NamedTuple):
    """A file of a table's state, in the order in which a stream reads the initial snapshot."""

    modified: int
    path: str
    size: int
    rows: int


def commit_name(version: int) -> str:
    """Return the name of a commit's file."""
    return f"{version:020d}.json"


def commit_version(name: str) -> int | None:
    """Return the version of a commit by the name of its file, or None if it is another file."""
    return int(name[:20]) if len(name) == 25 and name.endswith(".json") and name[:20].isdigit() else None


def parse_commit(content: bytes, modified: float) -> Commit:
    """Parse the file of a commit.

    Args:
        content: the file's content.
        modified: when it was written, in Unix time.

    Raises:
        WatchError: the content is not that of a commit (`corrupt`).
    """
    timestamp, table_id, rewrites = modified, None, False
    added, cdc, changed = _FileList(), _FileList(), _FileList()
    with _corrupt_if_invalid():
        for action, of in _actions(content):
            if action == "add":
                if of.get("dataChange"):
                    size, rows = int(of["size"]), file_rows(of)
                    added.append(size, rows)
                    changed.append(size, rows)
            elif action == "remove":
                if of.get("dataChange"):
                    rewrites = True
                    changed.append(of.get("size") or 0, UNKNOWN)
            elif action == "cdc":
                cdc.append(of["size"], UNKNOWN)
            elif action == "commitInfo":
                milliseconds = of.get("inCommitTimestamp")
                timestamp = modified if milliseconds is None else milliseconds / 1000
            elif action == "metaData":
                table_id = str(of["id"])
        files = added.files()
        feed = cdc.files() if cdc.sizes else changed.files() if rewrites else files
    return Commit(timestamp, files, feed, rewrites, table_id)


def snapshot(commits: Iterable[bytes]) -> Files:
    """Return the files of a table after these commits, from version 0 on, in the order of the initial snapshot."""
    files: dict[tuple[str, str], SnapshotFile] = {}
    with _corrupt_if_invalid():
        for content in commits:
            for action, of in _actions(content):
                if action == "add":
                    files[_file_key(of)] = SnapshotFile(of["modificationTime"], of["path"], of["size"], file_rows(of))
                elif action == "remove":
                    files.pop(_file_key(of), None)
    # As Spark sorts text: by its bytes.
    in_order = sorted(files.values(), key=lambda file: (file.modified, file.path.encode()))
    return Files(array("q", [file.size for file in in_order]), array("q", [file.rows for file in in_order]))


def checksum_table_id(content: bytes) -> str | None:
    """Return the table's id from the checksum file that Delta writes next to a commit, or None if it is not there."""
    try:
        return str(json.loads(content)["metadata"]["id"])
    except (ValueError, KeyError, TypeError):
        return None


def checkpoint_version(content: bytes) -> int | None:
    """Return the version that the file `_last_checkpoint` names, or None if it names none."""
    try:
        return int(json.loads(content)["version"])
    except (ValueError, KeyError, TypeError):
        return None


def file_rows(add: dict[str, Any]) -> int:
    """Return the rows of a file that a reader gets, or UNKNOWN."""
    stats = add.get("stats")
    if not stats:
        return UNKNOWN
    first = _NUM_RECORDS.match(stats)
    rows = int(first[1]) if first else json.loads(stats).get("numRecords")
    if rows is None:
        return UNKNOWN
    vector = add.get("deletionVector")
    return int(rows) - int(vector["cardinality"]) if vector else int(rows)


def _actions(content: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each action of a commit that may be about files, the table or the commit: its name and its fields."""
    if not content:
        raise ValueError("empty")
    for line in content.decode().split("\n"):  # splitlines() would also split at other characters, inside of names
        if line and not line.startswith(_OTHER_ACTIONS):
            yield from json.loads(line).items()


@contextmanager
def _corrupt_if_invalid() -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        raise WatchError("corrupt", "is not a complete commit of a Delta table; restore it if this persists") from None


def _file_key(of: dict[str, Any]) -> tuple[str, str]:
    """Return what identifies a file of a table: its path and its deletion vector."""
    vector = of.get("deletionVector")
    return of["path"], f"{vector['storageType']}{vector['pathOrInlineDv']}@{vector.get('offset')}" if vector else ""


class _FileList:
    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.rows: list[int] = []

    def append(self, size: int, rows: int) -> None:
        self.sizes.append(size)
        self.rows.append(rows)

    def files(self) -> Files:
        return Files(array("q", self.sizes), array("q", self.rows))
