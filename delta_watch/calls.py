"""Run what reads a folder: an error, or a folder that hangs, is a result like any other."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from .errors import WatchError
from .store import Folder, open_folder
from .threads import Threads, TimedOut

T = TypeVar("T")


class Calls:
    """Calls of coroutines that read folders.

    Args:
        time_limit: seconds for each one, or for each request to an object store; None for any time.
    """

    def __init__(self, time_limit: float | None) -> None:
        self.time_limit = time_limit
        self.waiting_for: dict[str, None] = {}  # the places, in the order of the calls
        self._threads = Threads()

    def open(self, location: str) -> Folder:
        """Return the folder at a path or URL, see `open_folder`."""
        return open_folder(location, self.time_limit)

    async def run(
        self, kind: str, name: str, folder: Folder, coroutine: Coroutine[Any, Any, T], may_be_late: bool = False
    ) -> T | WatchError:
        """Return what a coroutine that reads this folder returns, or why it cannot.

        Args:
            kind: what the folder is.
            name: its name or its path.
            folder: the folder.
            coroutine: it reads nothing else.
            may_be_late: whether the time limit does not count.
        """
        time_limit = None if may_be_late else self.time_limit
        place = f"{kind} {name}"
        self.waiting_for[place] = None
        try:
            return await (self._threads.run(place, coroutine, time_limit) if folder.is_local else coroutine)
        except WatchError as error:
            return error
        except TimedOut:
            limit = f"{time_limit:g} seconds"
            return WatchError("timeout", f"{place} has not answered within {limit}; check its store")
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # an unforeseen error costs one lag, not the watcher
            return WatchError("corrupt", f"{place} cannot be understood ({type(error).__name__}: {error})")
        finally:
            self.waiting_for.pop(place, None)
