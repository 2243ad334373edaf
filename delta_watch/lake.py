"""Find the tables in a lake and the checkpoints of streaming queries."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Annotated

from msgspec import Meta, Struct

from .backlog import Reads
from .discovery import Consumer, Text, is_run
from .errors import WatchError
from .store import Folder, printable


class Lake(Struct, frozen=True, forbid_unknown_fields=True):
    """A folder with tables and checkpoints in any folders below it.

    Args:
        path: path or URL of the folder.
        exclude: patterns of paths in it that are not looked at, such as `tmp/*`.
        depth: how many folders deep to look.
        reads: what the consumers do with commits that remove rows.
    """

    path: Text
    exclude: tuple[Text, ...] = ()
    depth: Annotated[int, Meta(ge=0)] = 6
    reads: Reads = "appends"


@dataclass
class Found:
    """What is in a lake: paths relative to it, and the folders that could not be listed."""

    tables: list[str] = field(default_factory=list)
    checkpoints: list[str] = field(default_factory=list)
    errors: list[WatchError] = field(default_factory=list)


async def walk(folder: Folder, lake: Lake, known: Collection[str] = ()) -> Found:
    """Return the tables and checkpoints in a lake. It lists all folders of a level at once.

    It does not enter a table's partitions, but looks for checkpoints in the other folders of a table.

    Args:
        folder: that of the lake.
        lake: how to look.
        known: checkpoints found before. They are not listed again.
    """
    found, level, entered = Found(), [""], set[str]()
    for _ in range(lake.depth + 1):
        following: list[str] = []
        found.checkpoints += [path for path in level if path in known]
        # A link may lead to a folder that was listed already, even to one above it.
        real = {path: folder.real(path) for path in level if path not in known}
        level = [path for path in real if real[path] not in entered]
        entered |= {*real.values()}

        async def names(path: str) -> list[str]:
            (listed,) = await folder.folders([path])
            return listed

        for path, listed in zip(level, await folder.at_once(names, level), strict=True):
            if isinstance(listed, WatchError):
                found.errors.append(listed)
                continue
            if isinstance(listed, BaseException):
                raise listed
            if {"offsets", "commits"} <= set(listed):
                found.checkpoints.append(path)
                continue
            is_table = "_delta_log" in listed
            if is_table:
                found.tables.append(path)
            inside = (f"{path}/{name}".lstrip("/") for name in sorted(listed) if _may_enter(name, is_table))
            following += (path for path in inside if not any(fnmatchcase(path, each) for each in lake.exclude))
        level = following
    found.checkpoints = _latest_runs(found.checkpoints)
    return found


def lake_path(lake: Lake, path: str) -> str:
    """Return the path or URL of what is at a path in the lake."""
    return f"{lake.path.rstrip('/')}/{path}".rstrip("/")


def table_name(lake: Lake, path: str) -> str:
    """Return the name of a table: its path in the lake, or that of the lake's folder if it is the table."""
    return printable(path or lake.path.rstrip("/").rpartition("/")[2])


def consumers_of(lake: Lake, path: str, tables: Iterable[str]) -> list[Consumer]:
    """Return the consumers with the checkpoint at a path in the lake: one for each of these tables, which it reads."""
    name = printable(_without_run(path) or lake.path.rstrip("/").rpartition("/")[2])
    return [Consumer(name, table, lake_path(lake, path), lake.reads) for table in sorted(tables)]


def _may_enter(name: str, is_table: bool) -> bool:
    """Return whether to look into a folder. Partitions are `day=1`, or have two random characters as their name."""
    if name.startswith("."):
        return False
    return name == "_checkpoints" or not (is_table and ("=" in name or len(name) == 2 or name.startswith("_")))


def _latest_runs(checkpoints: Collection[str]) -> list[str]:
    """Return those of the latest runs: a full refresh of a pipeline starts `FLOW/1` after `FLOW/0`."""
    runs: defaultdict[str, list[str]] = defaultdict(list)
    for path in checkpoints:
        runs[_without_run(path)].append(path)
    return [max(paths, key=lambda path: (len(path), path)) for paths in runs.values()]


def _without_run(path: str) -> str:
    parent, _, name = path.rpartition("/")
    return parent if parent and is_run(name) else path
