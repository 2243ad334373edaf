"""How far a query has come, by the files in its checkpoint."""

from contextlib import suppress
from dataclasses import dataclass

from .errors import WatchError
from .offsets import Batch, batch_numbers, parse_batch
from .store import Folder


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a query has come.

    Args:
        last: the last finished batch, or why it is unknown.
        is_running: whether a later batch is planned. It runs, or it has died.
        planned: when that batch was planned, in Unix time; None if unknown.
        number: the number of the last finished batch; None if there is none.
        committed: when it was committed, in Unix time; None if unknown.
    """

    last: Batch | WatchError
    is_running: bool = False
    planned: float | None = None
    number: int | None = None
    committed: float | None = None


class Checkpoint:
    """A checkpoint. It reads each file once."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._offsets, self._commits = folder.child("offsets"), folder.child("commits")
        self._batches: dict[str, Batch] = {}
        self._number: int | None = None  # of the last finished batch
        self._committed: tuple[Batch | WatchError | None, float | None] = None, None  # and when it was committed

    def progress(self) -> Progress:
        """Return how far the query has come now.

        Raises:
            WatchError: the checkpoint cannot be read.
        """
        # In this order a batch counts as running only if it was still running when the commits were listed.
        planned = batch_numbers(self._offsets.names())
        finished = max(batch_numbers(self._commits.names()), default=-1)
        running = min((number for number in planned if number > finished), default=None)
        used: dict[str, Batch] = {}
        last, planned_at = self._last_batch(finished, used), self._planned(running, used)
        self._batches = used
        if isinstance(last, WatchError):
            return Progress(last, running is not None, planned_at)
        if last is not self._committed[0]:
            committed = None
            with suppress(FileNotFoundError):  # Spark deletes old ones
                committed = self._commits.read(str(self._number)).modified
            self._committed = last, committed
        return Progress(last, running is not None, planned_at, self._number, self._committed[1])

    def _last_batch(self, finished: int, used: dict[str, Batch]) -> Batch | WatchError:
        self._number = finished
        if finished < 0:
            if self._folder.tag("metadata") is None and not self._offsets.names():
                return WatchError("missing", f"there is no checkpoint at {self._folder}; check the path")
            return WatchError("no_batch", f"the query at {self._folder} has not finished a batch yet; wait for it")
        try:
            return self._batch(finished, used)
        except FileNotFoundError:
            # Spark deletes old batches: by now there is a newer one. Otherwise the checkpoint has lost a file.
            newest = max(batch_numbers(self._commits.names()), default=finished)
            if newest > finished:
                return self._last_batch(newest, used)
            return WatchError(
                "corrupt", f"{self._offsets}/{finished} is missing; restore the checkpoint, or start with a new one"
            )
        except WatchError as error:
            if error.reason in ("permission", "store"):
                raise
            return error

    def _planned(self, number: int | None, used: dict[str, Batch]) -> float | None:
        """Return when a batch was planned. A file that Spark is still writing must not hide the lag."""
        if number is None:
            return None
        try:
            return self._batch(number, used).planned
        except (FileNotFoundError, WatchError):
            return None

    def _batch(self, number: int, used: dict[str, Batch]) -> Batch:
        name = str(number)
        # With the tag, because a new checkpoint counts its batches from 0 again.
        key = f"{name} {self._offsets.tag(name)}"
        batch = self._batches.get(key)
        if batch is None:
            try:
                batch = parse_batch(self._offsets.read(name).content)
            except WatchError as error:
                raise WatchError(error.reason, f"{self._offsets}/{name} {error}") from None
        used[key] = batch
        return batch
