"""What a consumer has not read yet: the distance from its position to the table's last version."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Literal, NamedTuple

from .commits import UNKNOWN, Commit, Files
from .offsets import Position

# What a consumer does with a commit that removes rows: skip it or fail ("appends"), read the added files ("rewrites"),
# or read the change feed. The checkpoint does not say which.
Reads = Literal["appends", "rewrites", "change_feed"]


class Amount(NamedTuple):
    """Files, bytes and rows to read. Rows are None if a file has no statistics."""

    files: int
    bytes: int
    rows: int | None

    def plus(self, other: "Amount") -> "Amount":
        """Return the sum."""
        rows = None if self.rows is None or other.rows is None else self.rows + other.rows
        return Amount(self.files + other.files, self.bytes + other.bytes, rows)


NOTHING = Amount(0, 0, 0)


@dataclass(frozen=True, slots=True)
class Backlog:
    """How far a consumer is behind.

    Args:
        version: the last version read completely, or −1 if there is none yet.
        versions: how many versions were committed after it.
        since: commit time of the oldest unread version, in Unix time; None if there is none, or if it is unknown.
        amount: what the consumer will read; None if unknown.
        rewrites: how many of the unread commits also remove rows; None if unknown.
    """

    version: int
    versions: int
    since: float | None
    amount: Amount | None
    rewrites: int | None


def unread(
    positions: Sequence[Position],
    head: int,
    commits: Mapping[int, Commit] | None,
    snapshots: Mapping[int, Files | None],
    reads: Reads = "appends",
) -> Backlog:
    """Return what a consumer has not read yet.

    Inside its initial snapshot a consumer has read no version completely, and its oldest unread commit is the one of
    the snapshot. A query that reads the table more than once has read a version when all its sources have.

    Args:
        positions: where its sources will continue, at least one.
        head: the table's last version.
        commits: all commits from the first position on, by version; None if some of them are unknown.
        snapshots: the files of the initial snapshots that sources are reading, by version; None if unknown.
        reads: what the consumer does with a commit that removes rows.
    """
    if commits is None:
        last_read = min(positions).last_read
        return Backlog(last_read, max(head - last_read, 0), None, None, None)
    positions = [_after_whole_commit(position, commits, reads) for position in positions]
    oldest = min(positions)
    amounts = [_amount(position, head, commits, snapshots, reads) for position in positions]
    first = oldest.version if oldest.in_commits else oldest.version + 1
    is_behind = oldest.version <= head
    return Backlog(
        version=oldest.last_read,
        versions=max(head - oldest.last_read, 0),
        since=commits[oldest.version].timestamp if is_behind and oldest.version in commits else None,
        amount=None if None in amounts else total(amount for amount in amounts if amount is not None),
        rewrites=sum(commits[version].rewrites for version in range(first, head + 1)),
    )


def total(amounts: Iterable[Amount]) -> Amount:
    """Return the sum."""
    return reduce(Amount.plus, amounts, NOTHING)


def files_read(commit: Commit, reads: Reads) -> Files | None:
    """Return the files of a commit that a consumer reads, or None if it skips the commit or fails there."""
    if reads == "change_feed":
        return commit.changed
    return None if commit.rewrites and reads == "appends" else commit.added


def _after_whole_commit(position: Position, commits: Mapping[int, Commit], reads: Reads) -> Position:
    """Return the start of the next version if the position is after the last file of a commit.

    A stream of the change feed stops there. Any other moves on to the next version by itself.
    """
    commit = commits.get(position.version)
    if position.index < 0 or not position.in_commits or commit is None:
        return position
    files = commit.changed if reads == "change_feed" else commit.added
    return Position(True, position.version + 1, -1) if position.index >= len(files.sizes) - 1 else position


def _amount(
    position: Position,
    head: int,
    commits: Mapping[int, Commit],
    snapshots: Mapping[int, Files | None],
    reads: Reads,
) -> Amount | None:
    if position.version > head:
        return NOTHING
    if position.in_commits:
        rest = files_read(commits[position.version], reads)
    elif (rest := snapshots.get(position.version)) is None:
        return None
    whole = (files_read(commits[version], reads) for version in range(position.version + 1, head + 1))
    return total([*(_rest(files) for files in whole if files), _rest(rest, position.index) if rest else NOTHING])


def _rest(files: Files, index: int = -1) -> Amount:
    """Return what comes after the file with this index."""
    sizes, rows = files.sizes[index + 1 :], files.rows[index + 1 :]
    return Amount(len(sizes), sum(sizes), None if UNKNOWN in rows else sum(rows))
