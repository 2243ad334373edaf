"""Print the last results: as a table for people, or as JSON for scripts."""

import json
from collections.abc import Iterable

from .summary import UNKNOWN, Lag, number, words

COLUMNS = ("consumer", "table", "head", "read", "versions", "seconds", "files", "bytes", "rows", "state")
TEXT_COLUMNS = ("consumer", "table", "state")
JSON_FIELDS = Lag._fields[: Lag._fields.index("reason") + 1]
NO_CONSUMER = "-"


def format_json(lags: Iterable[Lag]) -> str:
    """Return an object for each line, with null for what is unknown."""
    return json.dumps({"consumers": [{name: getattr(lag, name) for name in JSON_FIELDS} for lag in lags]}, indent=2)


def format_table(lags: Iterable[Lag]) -> str:
    """Return a table."""
    lines = [COLUMNS, *map(_line, lags)]
    columns = [
        [cell.ljust(width) if name in TEXT_COLUMNS else cell.rjust(width) for cell in cells]
        for name, *cells in zip(COLUMNS, *lines, strict=True)
        for width in [max(map(len, cells))]
    ]
    return "\n".join("  ".join(cells).rstrip() for cells in zip(*columns, strict=True))


def _line(lag: Lag) -> tuple[str, ...]:
    numbers = (lag.lag_versions, lag.lag_seconds, lag.backlog_files, lag.backlog_bytes, lag.backlog_rows)
    verdict = lag.reason or words(lag)
    if lag.consumer is None:
        return (NO_CONSUMER, lag.table, number(lag.table_version), *[""] * (len(numbers) + 1), verdict)
    read = "none" if lag.version == -1 else UNKNOWN if lag.version is None else str(lag.version)
    return (lag.consumer, lag.table, number(lag.table_version), read, *map(number, numbers), verdict)
