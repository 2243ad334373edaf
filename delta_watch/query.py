"""What is known of a query by its checkpoint."""

from dataclasses import dataclass

from .checkpoint import Batch, batch_numbers, parse_batch
from .errors import WatchError
from .store import Folder


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a query has come.

    Args:
        last: the last batch that is done, or why it is unknown.
        is_running: whether a batch runs, or has died.
        planned: when that batch was planned, in Unix time; None if unknown.
    """

    last: Batch | WatchError
    is_running: bool = False
    planned: float | None = None


class Query:
    """A query. It reads each file of the checkpoint once."""

    def __init__(self, checkpoint: Folder) -> None:
        self._checkpoint = checkpoint
        self._offsets, self._commits = checkpoint.child("offsets"), checkpoint.child("commits")
        self._batches: dict[str, Batch] = {}

    def look(self) -> Progress:
        """Return how far the query has come now.

        Raises:
            WatchError: the checkpoint cannot be read.
        """
        # In this order a batch counts as running only if it was still running when the commits were listed.
        planned = batch_numbers(self._offsets.names())
        done = max(batch_numbers(self._commits.names()), default=None)
        later = min((number for number in planned if done is None or number > done), default=None)
        used: dict[str, Batch] = {}
        progress = Progress(self._last_batch(done, used), later is not None, self._planned(later, used))
        self._batches = used
        return progress

    def _last_batch(self, done: int | None, used: dict[str, Batch]) -> Batch | WatchError:
        if done is None:
            if self._checkpoint.tag("metadata") is None and not self._offsets.names():
                return WatchError("missing", f"there is no checkpoint at {self._checkpoint}; check the path")
            return WatchError("no_batch", f"the query at {self._checkpoint} has not finished a batch yet; wait for it")
        try:
            return self._batch(done, used)
        except FileNotFoundError:
            # Spark deletes old batches: by now there is a newer one. Otherwise the checkpoint has lost a file.
            newest = max(batch_numbers(self._commits.names()), default=done)
            if newest > done:
                return self._last_batch(newest, used)
            return WatchError(
                "corrupt", f"{self._offsets}/{done} is missing; restore the checkpoint, or start with a new one"
            )
        except WatchError as error:
            if error.reason in ("permission", "store"):
                raise
            return error

    def _planned(self, number: int | None, used: dict[str, Batch]) -> float | None:
        """Return when a batch was planned. That the file is just being written must not hide the lag."""
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
            content = self._offsets.read(name).content
            try:
                batch = parse_batch(content.decode())
            except UnicodeDecodeError:
                raise WatchError("corrupt", f"{self._offsets}/{name} is not a text; restore the checkpoint") from None
            except WatchError as error:
                raise WatchError(error.reason, f"{self._offsets}/{name} {error}") from None
        used[key] = batch
        return batch
