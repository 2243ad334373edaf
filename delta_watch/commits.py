"""Parse the commits in a table's `_delta_log`: the files that each one adds, and whether it removes rows."""

import json
import re
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .errors import WatchError

UNKNOWN = -1  # rows of a file without statistics

# These actions say nothing about files. Skipping them without parsing saves a tenth of the time.
_OTHER_ACTIONS = ('{"protocol"', '{"txn"', '{"domainMetadata"')
# `delta.logRetentionDuration` is an interval of Spark SQL, such as "interval 30 days" or "1 week 12 hours".
_LOG_RETENTION = 30 * 86400  # seconds, Delta's default
_SECONDS = {"week": 604800, "day": 86400, "hour": 3600, "minute": 60, "second": 1}
_PERIOD = rf"\s*(\d+)\s*({'|'.join(_SECONDS)})s?"
_NUM_RECORDS = re.compile(r'\s*\{\s*"numRecords"\s*:\s*(\d+)\s*[,}]')


@dataclass(frozen=True, slots=True)
class Files:
    """Files in the order in which a stream reads them and its index counts them.

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
        retention: seconds until the log may be cleaned up, if the commit sets the table's metadata; None if never.
    """

    timestamp: float
    added: Files
    changed: Files
    rewrites: bool
    table_id: str | None
    retention: float | None = None


def commit_name(version: int) -> str:
    """Return the name of a commit's file."""
    return f"{version:020d}.json"


def commit_version(name: str) -> int | None:
    """Return the version of the commit in the file of this name, or None if the file is no commit."""
    return int(name[:20]) if len(name) == 25 and name.endswith(".json") and name[:20].isdigit() else None


def parse_commit(content: bytes, modified: float) -> Commit:
    """Parse the file of a commit.

    Args:
        content: the file's content.
        modified: when it was written, in Unix time.

    Raises:
        WatchError: the content is not that of a commit (`corrupt`).
    """
    timestamp, table_id, retention, rewrites = modified, None, None, False
    added: list[tuple[int, int]] = []  # size and rows
    changed, cdc = list(added), list(added)
    with _corrupt_if_invalid():
        for kind, action in _actions(content):
            if kind == "add":
                if action.get("dataChange"):
                    added.append((int(action["size"]), file_rows(action)))
                    changed.append(added[-1])
            elif kind == "remove":
                if action.get("dataChange"):
                    rewrites = True
                    changed.append((action.get("size") or 0, UNKNOWN))
            elif kind == "cdc":
                cdc.append((action["size"], UNKNOWN))
            elif kind == "commitInfo":
                milliseconds = action.get("inCommitTimestamp")
                timestamp = modified if milliseconds is None else milliseconds / 1000
            elif kind == "metaData":
                table_id, retention = str(action["id"]), log_retention(action)
        files = _files(added)
        change_feed = _files(cdc) if cdc else _files(changed) if rewrites else files
    return Commit(timestamp, files, change_feed, rewrites, table_id, retention)


def snapshot(commits: Iterable[bytes]) -> Files:
    """Return the files of a table after these commits, from version 0 on, in the order of the initial snapshot."""
    files: dict[tuple[str, str], tuple[int, bytes, int, int]] = {}  # sorted by their first two fields, as Spark does
    with _corrupt_if_invalid():
        for content in commits:
            for kind, action in _actions(content):
                if kind == "add":
                    path = action["path"].encode()
                    files[_file_key(action)] = action["modificationTime"], path, action["size"], file_rows(action)
                elif kind == "remove":
                    files.pop(_file_key(action), None)
        return _files([file[2:] for file in sorted(files.values())])


def parse_checksum(content: bytes) -> tuple[str | None, float | None]:
    """Return the table's id and the log's retention from the checksum file that Delta writes with a commit."""
    try:
        metadata = json.loads(content)["metadata"]
        return str(metadata["id"]), log_retention(metadata)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None, None


def log_retention(metadata: dict[str, Any]) -> float | None:
    """Return after how many seconds a table's log may be cleaned up, or None if never, or if that is unknown."""
    properties = {str(key).lower(): str(value) for key, value in (metadata.get("configuration") or {}).items()}
    if properties.get("delta.enableexpiredlogcleanup", "true").lower() == "false":
        return None
    if (text := properties.get("delta.logretentionduration")) is None:
        return _LOG_RETENTION
    text = text.lower()
    if not re.fullmatch(rf"(\s*interval\s)?({_PERIOD})+\s*", text):
        return None
    return sum(int(count) * _SECONDS[unit] for count, unit in re.findall(_PERIOD, text))


def checkpoint_version(content: bytes) -> int | None:
    """Return the version that the file `_last_checkpoint` names, or None if it names none."""
    try:
        return int(json.loads(content)["version"])
    except (ValueError, KeyError, TypeError):
        return None


def file_rows(add: dict[str, Any]) -> int:
    """Return how many rows a reader gets from a file, or UNKNOWN."""
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
    """Yield the kind and the fields of each action that says something about files, the table or the commit."""
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


def _file_key(action: dict[str, Any]) -> tuple[str, str]:
    """Return what identifies a file of a table: its path and its deletion vector."""
    vector = action.get("deletionVector")
    return action["path"], f"{vector['storageType']}{vector['pathOrInlineDv']}@{vector.get('offset')}" if vector else ""


def _files(files: list[tuple[int, int]]) -> Files:
    """Return files whose sizes and rows are these."""
    return Files(array("q", [size for size, _ in files]), array("q", [rows for _, rows in files]))
