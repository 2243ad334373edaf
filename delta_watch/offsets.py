"""Parse the offset log of a checkpoint: where each Delta source will continue, and when a batch was planned.

Spark writes `offsets/N` before batch N and `commits/N` after it. The highest number in `commits` is the last finished
batch, and its file in `offsets` says how far it has read.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .errors import WatchError

UPGRADE = "use a delta-watch that supports the consumer's Spark and Delta"

# The versions of the offset log, and of a Delta offset (`sourceVersion`).
OFFSET_LOGS = ("v1", "v2")
OFFSETS = (1, 3)
BEFORE_FIRST_FILE = -1  # Delta also writes -100, -20 and -19: all of them are before the first file
NO_OFFSET = "-"
PERSISTS = "restore the checkpoint if this persists"


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Where a source will continue: after the file with this index in a version's commit or in the initial snapshot.

    Positions sort in the order of reading: the initial snapshot before all commits.
    """

    in_commits: bool
    version: int
    index: int

    @property
    def last_read(self) -> int:
        """The last version read completely, or −1 if there is none yet."""
        return self.version - 1 if self.in_commits else -1

    @property
    def proven(self) -> int:
        """The last version that must exist: this one if it was read in part, else the one before."""
        return self.version if self.index >= 0 or not self.in_commits else self.version - 1


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as Spark planned it.

    Args:
        planned: when, in Unix time; None if the file does not say.
        offsets: the offset of each source after the batch, parsed; None if the source has none yet.
    """

    planned: float | None
    offsets: tuple[Any, ...]


def batch_numbers(names: Iterable[str]) -> list[int]:
    """Return the numbers of the batches among file names. Hadoop's checksums and temporary files are no batches."""
    return [int(name) for name in names if name.isascii() and name.isdigit()]


def parse_batch(content: bytes) -> Batch:
    """Parse a file of the folder `offsets`.

    Raises:
        WatchError: the file is incomplete (`corrupt`), or of a newer version (`unknown_offset`).
    """
    # splitlines() would also split at other characters, inside of names.
    lines = content.decode(errors="replace").rstrip("\n").split("\n")
    if not re.fullmatch(r"v\d+", lines[0]):
        raise WatchError("corrupt", f"is not a batch of a streaming query; {PERSISTS}")
    if lines[0] not in OFFSET_LOGS:
        raise WatchError("unknown_offset", f"has the unknown version {lines[0]}; {UPGRADE}")
    if len(lines) < 3:
        raise WatchError("corrupt", f"is incomplete; {PERSISTS}")
    sources = lines[2:]
    if lines[0] == "v2":  # each line starts with the id of its source
        sources = [line.partition(":")[2] for line in sources]
    try:
        metadata = json.loads(lines[1]) if lines[1].strip() else {}
        planned = metadata.get("batchTimestampMs")
        return Batch(
            planned / 1000 if planned else None,
            tuple(None if source == NO_OFFSET else json.loads(source) for source in sources),
        )
    except (ValueError, TypeError, AttributeError):
        raise WatchError("corrupt", f"is not valid JSON; {PERSISTS}") from None


def table_ids(batch: Batch) -> set[str]:
    """Return the ids of the Delta tables that the batch has read."""
    return {str(offset["reservoirId"]) for offset in batch.offsets if _is_delta(offset)}


def positions(batch: Batch, table_id: str) -> tuple[Position, ...]:
    """Return where each source that reads a table will continue. A query may read a table more than once.

    Args:
        batch: the last finished batch.
        table_id: the id of the table.

    Raises:
        WatchError: the query reads no Delta table (`not_delta`), or another one (`wrong_table`), or has read nothing
            yet (`no_batch`), or its offset has an unknown format (`unknown_offset`).
    """
    found = tuple(
        _position(offset) for offset in batch.offsets if _is_delta(offset) and offset["reservoirId"] == table_id
    )
    if found:
        return found
    if None in batch.offsets:
        raise WatchError("no_batch", "has read nothing of this table yet; wait for its first batch with data")
    if ids := table_ids(batch):
        raise WatchError(
            "wrong_table",
            f"reads the table with the id {' and '.join(sorted(ids))}, but this one has the id {table_id}; name the "
            "right table, or give the consumer a new checkpoint if the table was created again",
        )
    raise WatchError("not_delta", "reads no Delta table; name the checkpoint of another query")


def _is_delta(offset: Any) -> bool:
    return isinstance(offset, dict) and "reservoirId" in offset


def _position(offset: dict[str, Any]) -> Position:
    if offset.get("sourceVersion") not in OFFSETS:
        raise WatchError(
            "unknown_offset", f"has a Delta offset of the unknown version {offset.get('sourceVersion')}; {UPGRADE}"
        )
    try:
        index = max(int(offset["index"]), BEFORE_FIRST_FILE)
        return Position(not offset["isStartingVersion"], int(offset["reservoirVersion"]), index)
    except (KeyError, TypeError, ValueError):
        raise WatchError("unknown_offset", f"has a Delta offset in an unknown format; {UPGRADE}") from None
