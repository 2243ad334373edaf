"""Inspect a consumer's checkpoint on a local disk, before a message says that it cannot be used."""

import json
import re
from pathlib import Path
from uuid import UUID


def damage(location: str) -> str | None:
    """Return what is wrong with the files of a checkpoint.

    Args:
        location: the checkpoint, on a local disk.

    Returns:
        One phrase, or None if the files look complete, or if the checkpoint is elsewhere.

    Source: how Spark writes `metadata`, `offsets/N` and `commits/N`.
    """
    checkpoint = Path(location.removeprefix("file:"))
    if not checkpoint.is_dir():
        return None
    batches = {log: _batches(checkpoint / log) for log in ("offsets", "commits")}
    for file in [checkpoint / "metadata", *batches["offsets"].values(), *batches["commits"].values()]:
        if not file.exists():
            if any(batches.values()):
                return f"its file {file.relative_to(checkpoint)} is missing"
        elif not _is_complete(file):
            return f"its file {file.relative_to(checkpoint)} is damaged"
    if missing := batches["commits"].keys() - batches["offsets"].keys():
        return f"its file offsets/{max(missing)} is missing"
    if not batches["offsets"] and any((checkpoint / "offsets").glob("*")):
        return "a run was interrupted before its first batch, and nothing has been read yet"
    return None


def _batches(log: Path) -> dict[int, Path]:
    return {int(file.name): file for file in log.glob("*") if file.name.isdigit()}


def _is_complete(file: Path) -> bool:
    """Return whether Spark can parse a file.

    `metadata` is JSON with a UUID. A log's file has a line with its version, then JSON, or `-` for a source without an
    offset; a source's line may start with its number.
    """
    text = file.read_text(errors="replace")
    try:
        if file.name == "metadata":
            UUID(json.loads(text)["id"])
            return True
        version, *lines = text.splitlines()
        for line in lines:
            if line != "-":
                json.loads(re.sub(r"^\d+:", "", line))
        return version.startswith("v") and bool(lines)
    except (ValueError, TypeError, KeyError):
        return False
