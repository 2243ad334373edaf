"""What the files in the checkpoint of a query say: where each Delta source will continue, and when a batch was planned.

Spark writes `offsets/N` before batch N and `commits/N` after it. The highest number in `commits` is the last batch that
is done, and its file in `offsets` says how far it has read.
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


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Where a source will continue: after the file with this index, of a version's commit or of the initial snapshot.

    The order is the order of reading: all of the initial snapshot comes before all later commits.
    """

    in_commits: bool
    version: int
    index: int

    @property
    def last_read(self) -> int:
        """The last version read completely, or −1 if there is none yet."""
        return self.version - 1 if self.in_commits else -1


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as it was planned.

    Args:
        planned: when, in Unix time; None if the file does not say.
        offsets: the sources' offsets after the batch, parsed; None for a source that has none yet.
    """

    planned: float | None
    offsets: tuple[Any, ...]


def batch_numbers(names: Iterable[str]) -> list[int]:
    """Return the numbers of the batches among the names of a folder's files, in no order.

    Hadoop leaves checksums and temporary files with other names.
    """
    return [int(name) for name in names if name.isascii() and name.isdigit()]


def parse_batch(text: str) -> Batch:
    """Parse a file in the folder `offsets`.

    Raises:
        WatchError: the file is incomplete (`corrupt`), or of a newer version (`unknown_offset`).
    """
    lines = text.rstrip("\n").split("\n")  # splitlines() would also split at other characters, inside of names
    if not re.fullmatch(r"v\d+", lines[0]):
        raise WatchError("corrupt", "is not a batch of a streaming query; restore the checkpoint if this persists")
    if lines[0] not in OFFSET_LOGS:
        raise WatchError("unknown_offset", f"has the unknown version {lines[0]}; {UPGRADE}")
    if len(lines) < 3:
        raise WatchError("corrupt", "is incomplete; restore the checkpoint if this persists")
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
        raise WatchError("corrupt", "is not valid JSON; restore the checkpoint if this persists") from None


def table_ids(batch: Batch) -> set[str]:
    """Return the ids of the Delta tables that the batch has read."""
    return {str(offset["reservoirId"]) for offset in batch.offsets if _is_delta(offset)}


def positions(batch: Batch, table_id: str) -> tuple[Position, ...]:
    """Return where the sources that read a table will continue: several if the query reads it more than once.

    Args:
        batch: the last batch that is done.
        table_id: the id of the table.

    Raises:
        WatchError: the query reads no Delta table (`not_delta`), not this one (`wrong_table`), nothing of it yet
            (`no_batch`), or its offset is of an unknown format (`unknown_offset`).
    """
    found = tuple(_position(o) for o in batch.offsets if _is_delta(o) and o["reservoirId"] == table_id)
    if found:
        return found
    if None in batch.offsets:
        raise WatchError("no_batch", "has read nothing of this table yet; wait for its first batch with data")
    if ids := table_ids(batch):
        raise WatchError(
            "wrong_table",
            f"reads the table with the id {' and '.join(sorted(ids))}, and this one has the id {table_id}: name the "
            "right table, or give the consumer a new checkpoint if the table was made again",
        )
    raise WatchError("not_delta", "reads no Delta table; name the checkpoint of another query")


def _is_delta(offset: Any) -> bool:
    return isinstance(offset, dict) and "reservoirId" in offset


def _position(offset: dict[str, Any]) -> Position:
    if offset.get("sourceVersion") not in OFFSETS:
        raise WatchError(
            "unknown_offset", f"has an offset of the unknown version {offset.get('sourceVersion')}; {UPGRADE}"
        )
    try:
        index = max(int(offset["index"]), BEFORE_FIRST_FILE)
        return Position(not offset["isStartingVersion"], int(offset["reservoirVersion"]), index)
    except (KeyError, TypeError, ValueError):
        raise WatchError("unknown_offset", f"has an offset of an unknown format; {UPGRADE}") from None
