"""Inspect a consumer's checkpoint on a local disk, before a message says that it cannot be used."""

import json
from pathlib import Path
from uuid import UUID

from delta_watch.errors import WatchError
from delta_watch.offsets import parse_batch


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
    """Return whether Spark can parse a file: `metadata` with a UUID, a batch's offsets, or a line `v1` and JSON."""
    try:
        if file.parent.name == "offsets":
            parse_batch(file.read_bytes())
            return True
        text = file.read_text()
        if file.name == "metadata":
            UUID(json.loads(text)["id"])
            return True
        version, content = text.split("\n", 1)
        return version.startswith("v") and bool(json.loads(content))
    except WatchError as error:
        return error.reason != "corrupt"  # Spark itself rejects a newer format, and says so
    except (ValueError, TypeError, KeyError):
        return False
