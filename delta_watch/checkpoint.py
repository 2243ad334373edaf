"""How far a query has come, by the files in its checkpoint."""

from dataclasses import dataclass, replace

from .errors import WatchError
from .offsets import Batch, batch_numbers, parse_batch
from .store import Folder, Tag

# Rounds between two looks at what rarely changes in a bucket, where each look costs: 2 minutes by default.
RARE = 8
# Why a batch is unknown is no property of its file.
PASSING = ("permission", "store", "timeout")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a query has come.

    Args:
        last: the last finished batch, or why it is unknown.
        is_running: whether a later batch is planned. It runs, or it has died.
        planned: when that batch was planned, in Unix time; None if unknown.
        number: the number of the last finished batch; None if it is unknown.
        committed: when it was committed, in Unix time; None if unknown.
    """

    last: Batch | WatchError
    is_running: bool = False
    planned: float | None = None
    number: int | None = None
    committed: float | None = None


class Checkpoint:
    """A checkpoint. It reads each file once.

    It lists the batches only at first, and when a file that it knows has changed. After that it asks for the last
    finished batch and for the next one: as long as these files are the same, nothing has happened.
    """

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.is_behind = False  # in the last round. If it does not move either, it may have skipped a number
        self._offsets, self._commits = folder.child("offsets"), folder.child("commits")
        self._batches: dict[str, Batch | WatchError] = {}
        self._number = -1  # of the last finished batch
        self._tags: dict[str, Tag | None] = {}  # of the files that say so
        self._progress = Progress(WatchError("missing", ""))
        self._skips = False  # whether batches are missing, as with asynchronous progress tracking
        self._still = 0  # rounds without a change

    async def progress(self) -> Progress:
        """Return how far the query has come now.

        Raises:
            WatchError: the checkpoint cannot be read.
        """
        self._still += 1
        is_due = self._still % RARE == 0
        looks_wrong = (self.is_behind or self._number < 0) and (is_due or self._skips)
        if self._tags and not looks_wrong:
            # The file in `commits` changes only if somebody runs a batch again.
            skipped = None if is_due or self.folder.is_local else f"commits/{self._number}"
            names = [name for name in self._tags if name != skipped]
            tags = await self.folder.tags(names)
            changed = {name for name, tag in zip(names, tags, strict=True) if tag != self._tags[name]}
            if not changed:
                return self._progress
            if self._number >= 0 and changed.isdisjoint(_names(self._number)):
                later = await self._commits.tags_from(str, self._number + 1)
                await self._look_at(self._number + len(later))
                return self._progress
        # In this order a batch counts as running only if it was still running when the commits were listed.
        planned = batch_numbers(await self._offsets.names())
        finished = sorted(batch_numbers(await self._commits.names()))
        self._skips = len(finished) > 1 and finished[-1] - finished[-2] > 1
        last = finished[-1] if finished else -1
        await self._look_at(last, min((number for number in planned if number > last), default=None))
        return self._progress

    async def _look_at(self, number: int, running: int | None = None) -> None:
        """Read the batch of this number, the last finished one, and the one that runs, by default the next one."""
        following = number + 1 if running is None else running
        names = [*(_names(number) if number >= 0 else ["metadata"]), f"offsets/{following}"]
        tags = dict(zip(names, await self.folder.tags(names), strict=True))
        used: dict[str, Batch | WatchError] = {}
        last: Batch | WatchError | None
        if number >= 0:
            last = await self._batch(number, tags, used)
        elif tags["metadata"] is None and tags[f"offsets/{following}"] is None:
            last = WatchError("missing", f"there is no checkpoint at {self.folder}; check the path")
        else:
            last = WatchError("no_batch", f"the query at {self.folder} has not finished a batch yet; wait for it")
        if last is None:
            # Spark deletes old batches: by now there is a newer one. Otherwise the checkpoint has lost a file.
            newest = max(batch_numbers(await self._commits.names()), default=number)
            if newest > number:
                return await self._look_at(newest)
            last = WatchError("corrupt", f"{self._offsets}/{number} is missing; restore it from a copy")
        planned, is_running = None, tags[f"offsets/{following}"] is not None
        if is_running:
            tags[f"commits/{following}"] = None  # if it has been written by now, the next round sees that
            batch = await self._batch(following, tags, used)
            planned = batch.planned if isinstance(batch, Batch) else None  # Spark may still be writing it
        progress = Progress(last, is_running, planned)
        if isinstance(last, Batch):
            committed = tags[f"commits/{number}"]
            progress = replace(progress, number=number, committed=committed.modified if committed else None)
        if (number, progress) != (self._number, self._progress):
            self._still = 0
        self._number, self._tags, self._progress, self._batches = number, tags, progress, used
        return None

    async def _batch(
        self, number: int, tags: dict[str, Tag | None], used: dict[str, Batch | WatchError]
    ) -> Batch | WatchError | None:
        """Return a planned batch, or why it cannot be understood, or None if it is missing."""
        # With the tag, because a new checkpoint counts its batches from 0 again.
        key = f"{number} {tags[f'offsets/{number}']}"
        batch = self._batches.get(key)
        if batch is None:
            try:
                batch = parse_batch((await self._offsets.read(str(number))).content)
            except FileNotFoundError:
                return None
            except WatchError as error:
                if error.reason in PASSING:
                    raise
                batch = WatchError(error.reason, f"{self._offsets}/{number} {error}")
        used[key] = batch
        return batch


def _names(number: int) -> list[str]:
    """Return the names of a finished batch's files."""
    return [f"offsets/{number}", f"commits/{number}"]
