"""Show the last results as a table for people."""

from collections.abc import Collection, Iterable

from .exporter import lag_seconds
from .watcher import ConsumerState, TableState

COLUMNS = ("consumer", "table", "head", "read", "versions", "seconds", "files", "bytes", "rows", "state")
TEXT_COLUMNS = ("consumer", "table", "state")
UNKNOWN = "?"
NO_CONSUMER = "-"


def is_known(states: Iterable[TableState], discovered: Collection[str] = ()) -> bool:
    """Return whether all lags are known, and each discovery has found a consumer.

    Args:
        states: what is known of the tables.
        discovered: the names of the tables whose consumers were to be discovered.
    """
    return all(
        not table.error
        and not any(state.error for state in table.consumers)
        and (table.consumers or table.name not in discovered)
        for table in states
    )


def format_states(states: Iterable[TableState], now: float) -> str:
    """Return a line for each consumer, and one for each table without any.

    Args:
        states: what is known of the tables.
        now: Unix time.
    """
    lines: list[tuple[str, ...]] = [COLUMNS]
    for table in states:
        head = _number(table.head.version if table.head else None)
        if not table.consumers:
            reason = table.error.reason if table.error else "no consumer"
            lines.append((NO_CONSUMER, table.name, head, *[""] * 6, reason))
        for state in table.consumers:
            lines.append((state.consumer.name, table.name, head, *_lag(state, now), _verdict(state)))
    columns = [
        [cell.ljust(width) if name in TEXT_COLUMNS else cell.rjust(width) for cell in cells]
        for name, *cells in zip(COLUMNS, *lines, strict=True)
        for width in [max(map(len, cells))]
    ]
    return "\n".join("  ".join(cells).rstrip() for cells in zip(*columns, strict=True))


def _lag(state: ConsumerState, now: float) -> list[str]:
    backlog = state.backlog
    if backlog is None:
        return [UNKNOWN] * 6
    seconds = lag_seconds(state, now)
    return [
        str(backlog.version) if backlog.version >= 0 else "none",
        _number(backlog.versions),
        _number(None if seconds is None else round(seconds)),
        *map(_number, backlog.amount or (None, None, None)),
    ]


def _verdict(state: ConsumerState) -> str:
    if state.error or not state.backlog:
        return state.error.reason if state.error else UNKNOWN
    backlog = state.backlog
    verdict = "first read" if backlog.version < 0 else "behind" if backlog.versions else "up to date"
    if backlog.rewrites:
        verdict += f", {backlog.rewrites} rewrite{'s' if backlog.rewrites > 1 else ''}"
    return verdict


def _number(number: int | None) -> str:
    return UNKNOWN if number is None else f"{number:,}"
