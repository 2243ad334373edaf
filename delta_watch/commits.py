"""Parse the commits in a table's `_delta_log`: the files that each one adds, and whether it removes rows."""

import re
from array import array
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from msgspec import MsgspecError, Struct, json

from .errors import WatchError

UNKNOWN = -1  # rows of a file without statistics
# `delta.logRetentionDuration` is an interval of Spark SQL, such as "interval 30 days" or "1 week 12 hours".
_LOG_RETENTION = "interval 30 days"
_SECONDS = {"week": 604800, "day": 86400, "hour": 3600, "minute": 60, "second": 1}
_PERIOD = rf"\s*(\d+)\s*({'|'.join(_SECONDS)})s?"
CATALOG_MANAGED = {"catalogManaged", "catalogOwned-preview"}  # the table feature, and its name in Delta 4.0
NO_ROWS_CHANGED = dict.fromkeys(("numTargetRowsInserted", "numTargetRowsUpdated", "numTargetRowsDeleted"), "0")


def _empty() -> "array[int]":
    return array("q")


@dataclass(frozen=True, slots=True)
class Files:
    """Files in the order in which a stream reads them and its index counts them.

    Args:
        sizes: bytes of each file.
        rows: rows of each file less those that its deletion vector marks, or UNKNOWN.
    """

    sizes: "array[int]" = field(default_factory=_empty)
    rows: "array[int]" = field(default_factory=_empty)

    def append(self, size: int, rows: int) -> None:
        """Add a file."""
        self.sizes.append(size)
        self.rows.append(rows)


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit of a Delta table.

    Args:
        timestamp: Unix time: the in-commit timestamp if there is one, else the file's modification time, as Delta does.
        added: the added files, without those that only rearrange rows (`dataChange: false`).
        changed: what a stream of the change feed reads; the same object as `added` if nothing was removed.
        rewrites: whether the commit also removes rows.
        metadata: the table's metadata, if the commit sets it.
        protocol: the table's protocol, if the commit sets it.
    """

    timestamp: float
    added: Files
    changed: Files
    rewrites: bool
    metadata: "Metadata | None"
    protocol: "Protocol | None"


@dataclass(frozen=True, slots=True)
class Ratified:
    """What a catalog has ratified.

    Args:
        last: the last version; −1 if the catalog does not manage the table's commits.
        files: in the log's folder, by version, of the commits that may not be published there yet.
    """

    last: int = -1
    files: Mapping[int, str] = field(default_factory=dict)


class _Vector(Struct):
    storageType: str
    pathOrInlineDv: str
    cardinality: int
    offset: int | None = None


class _Stats(Struct):
    numRecords: int | None = None


class DataFile(Struct):
    """A file of a table, as an action names it."""

    path: str
    size: int | None = None
    dataChange: bool = False
    modificationTime: int = 0
    stats: Any = None
    stats_parsed: _Stats | None = None  # in a checkpoint
    deletionVector: _Vector | None = None

    @property
    def key(self) -> tuple[str, str]:
        """What identifies a file of a table: its path and its deletion vector."""
        vector = self.deletionVector
        return self.path, f"{vector.storageType}{vector.pathOrInlineDv}@{vector.offset}" if vector else ""

    @property
    def rows(self) -> int:
        """How many rows a reader gets from it, or UNKNOWN."""
        rows = None
        try:
            rows = json.decode(self.stats, type=_Stats).numRecords
        except (MsgspecError, TypeError):  # none, null or cut off
            rows = self.stats_parsed.numRecords if self.stats_parsed else None
        if not isinstance(rows, int):
            return UNKNOWN
        return rows - self.deletionVector.cardinality if self.deletionVector else rows


class _Info(Struct):
    inCommitTimestamp: int | None = None
    operation: Any = None
    operationMetrics: Any = None


class Metadata(Struct):
    """A table's id and properties."""

    id: str
    configuration: dict[str, str] | None = None

    @property
    def retention(self) -> float | None:
        """After how many seconds a commit may be cleaned up; None if never, or if that is unknown."""
        properties = {key.lower(): value.lower() for key, value in (self.configuration or {}).items()}
        if properties.get("delta.enableexpiredlogcleanup") == "false":
            return None
        text = properties.get("delta.logretentionduration", _LOG_RETENTION)
        if not re.fullmatch(rf"(\s*interval\s)?({_PERIOD})+\s*", text):
            return None
        return sum(int(count) * _SECONDS[unit] for count, unit in re.findall(_PERIOD, text))


class Protocol(Struct):
    """The features that a table's writers need."""

    writerFeatures: list[str] | None = None

    @property
    def catalog_managed(self) -> bool:
        """Whether a catalog commits to the table."""
        return not CATALOG_MANAGED.isdisjoint(self.writerFeatures or ())


class _Sidecar(Struct):
    path: str


class Action(Struct):
    """A line of a commit. What says nothing about files, the table or the commit is skipped."""

    add: DataFile | None = None
    remove: DataFile | None = None
    cdc: DataFile | None = None
    commitInfo: _Info | None = None
    metaData: Metadata | None = None
    protocol: Protocol | None = None
    sidecar: _Sidecar | None = None


class Checksum(Struct):
    """What the checksum file of a version says of the table."""

    metadata: Metadata | None = None
    protocol: Protocol | None = None


class _Hint(Struct):
    version: int


decode_action = json.Decoder(Action).decode


class CommitParser:
    """Parse a commit line by line: some have 100 MB."""

    def __init__(self) -> None:
        self._added, self._changed, self._cdc = Files(), Files(), Files()
        self._info: _Info | None = None
        self._metadata: Metadata | None = None
        self._protocol: Protocol | None = None
        self._rewrites, self._is_empty = False, True

    def add_line(self, line: bytes) -> None:
        """Add a line.

        Raises:
            WatchError: it is not that of a commit (`corrupt`).
        """
        with corrupt_if_invalid():
            action = decode_action(line)
            self._is_empty = False
            if (file := action.add) and file.dataChange:
                size, rows = file.size, file.rows
                self._added.append(size, rows)  # type: ignore[arg-type]  # without a size it is corrupt
                self._changed.append(size, rows)  # type: ignore[arg-type]
            if (file := action.remove) and file.dataChange:
                self._rewrites = True
                self._changed.append(file.size or 0, UNKNOWN)
            if action.cdc:
                self._cdc.append(action.cdc.size or 0, UNKNOWN)
            self._info = action.commitInfo or self._info
            self._metadata = action.metaData or self._metadata
            self._protocol = action.protocol or self._protocol

    def commit(self, modified: float) -> Commit:
        """Return the commit.

        Args:
            modified: when its file was written, in Unix time.

        Raises:
            WatchError: there was no line (`corrupt`).
        """
        with corrupt_if_invalid():
            if self._is_empty:
                raise ValueError("empty")
        info = self._info or _Info()
        if self._cdc.sizes:
            changed = self._cdc
        elif info.operation == "MERGE" and NO_ROWS_CHANGED.items() <= (info.operationMetrics or {}).items():
            changed = Files()  # as Delta's CDCReader does with a MERGE that only rewrites unchanged rows
        else:
            changed = self._changed if self._rewrites else self._added
        return Commit(
            timestamp=modified if info.inCommitTimestamp is None else info.inCommitTimestamp / 1000,
            added=self._added,
            changed=changed,
            rewrites=self._rewrites,
            metadata=self._metadata,
            protocol=self._protocol,
        )


def commit_name(version: int) -> str:
    """Return the name of a commit's file."""
    return f"{version:020d}.json"


def commit_version(name: str) -> int | None:
    """Return the version of the commit in the file of this name, or None if the file is no commit."""
    return int(name[:20]) if len(name) == 25 and name.endswith(".json") and name[:20].isdigit() else None


def parse_checksum(content: bytes) -> Checksum:
    """Parse the checksum file that Delta writes with a commit. Nothing is known of the table if it is damaged."""
    try:
        return json.decode(content, type=Checksum)
    except MsgspecError:
        return Checksum()


def checkpoint_version(content: bytes) -> int | None:
    """Return the version that the file `_last_checkpoint` names, or None if it names none."""
    try:
        return json.decode(content, type=_Hint).version
    except MsgspecError:
        return None


@contextmanager
def corrupt_if_invalid() -> Iterator[None]:
    try:
        yield
    except (MsgspecError, ValueError, TypeError, AttributeError, OverflowError):
        raise WatchError("corrupt", "is not a complete commit of a Delta table; restore it if this persists") from None
