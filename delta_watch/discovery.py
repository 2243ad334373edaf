"""Find the checkpoints whose folders match patterns."""

from collections.abc import Collection
from fnmatch import fnmatchcase
from itertools import compress
from typing import Annotated

from msgspec import Meta, Struct

from .backlog import Reads
from .store import Folder, printable

RUN = "{run}"
Text = Annotated[str, Meta(pattern=r"\S")]


class Consumer(Struct, frozen=True, forbid_unknown_fields=True):
    """A consumer of a table.

    Args:
        name: its name, the label `consumer`.
        table: the name of the table, the label `table`.
        checkpoint: path or URL of the checkpoint of its query.
        reads: what it does with commits that remove rows.
    """

    name: Text
    table: Text
    checkpoint: Text
    reads: Reads = "appends"


class Discovery(Struct, frozen=True, forbid_unknown_fields=True):
    """Where to look for checkpoints. Each query found there that reads the table is a consumer.

    Args:
        table: the name of the table.
        checkpoints: a path or URL with wildcards, such as `/jobs/*/checkpoint`. What matches them names the consumer.
            `{run}` stands for the highest number among the names of folders.
        reads: what these consumers do with commits that remove rows.
    """

    table: Text
    checkpoints: Text
    reads: Reads = "appends"

    def split(self) -> tuple[str, str]:
        """Return the folder to look in, and the pattern of the folders in it."""
        parts = self.checkpoints.rstrip("/").split("/")
        first = next((number for number, part in enumerate(parts) if _has_wildcard(part)), len(parts))
        return "/".join(parts[:first]) or "/", "/".join(parts[first:])


async def find_consumers(folder: Folder, discoveries: Collection[Discovery]) -> dict[Discovery, list[Consumer]]:
    """Return a consumer for each checkpoint that matches a pattern in this folder. It lists each folder once."""
    listed: dict[str, list[str]] = {}
    found = {}
    for discovery in discoveries:
        place, pattern = discovery.split()
        parts = pattern.split("/")
        wildcards = [_has_wildcard(part) for part in parts]
        named = [part != RUN and _has_wildcard(part) for part in parts]
        paths = [""]
        for part, has_wildcard in zip(parts, wildcards, strict=True):
            if has_wildcard:
                new = [path for path in paths if path not in listed]
                listed |= dict(zip(new, await folder.folders(new), strict=True))
                found_here = ((path, name) for path in paths for name in _matching(listed[path], part))
            else:  # whether it exists shows at the end
                found_here = ((path, part) for path in paths)
            paths = [f"{path}/{name}".lstrip("/") for path, name in found_here]
        # Spark writes this file first.
        tags = await folder.tags([f"{path}/metadata" for path in paths])
        found[discovery] = [
            Consumer(
                printable("/".join(compress(path.split("/"), named))),
                discovery.table,
                f"{place.rstrip('/')}/{path}",
                discovery.reads,
            )
            for path, tag in zip(paths, tags, strict=True)
            if tag
        ]
    return found


def _has_wildcard(part: str) -> bool:
    """Return whether a part of a path stands for any number of names."""
    return part == RUN or any(character in part for character in "*?[")


def _matching(names: Collection[str], part: str) -> list[str]:
    """Return the names that match a part of a pattern, in order. As in a shell, a wildcard matches no hidden name."""
    if part == RUN:
        return sorted(filter(is_run, names), key=int)[-1:]
    return sorted(name for name in names if fnmatchcase(name, part) and name.startswith(".") <= part.startswith("."))


def is_run(name: str) -> bool:
    """Return whether a folder's name is a number, as a pipeline's full refresh gives it."""
    return name.isascii() and name.isdigit()
