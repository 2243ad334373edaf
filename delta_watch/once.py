"""Print the last results as a table for people."""

from collections.abc import Collection, Iterable

from .exporter import lag_seconds
from .watcher import ConsumerState, TableState

COLUMNS = ("consumer", "table", "head", "read", "versions", "seconds", "files", "bytes", "rows", "state")
UNKNOWN = "?"
NO_CONSUMER = "-"


def is_known(states: Iterable[TableState], discovered: Collection[str] = ()) -> bool:
    """Return whether all that was asked for is known.

    Args:
        states: what is known of the tables.
        discovered: the names of the tables whose consumers were to be discovered, so that there must be one.
    """
    return all(
        not state.error
        and not any(of.error for of in state.consumers)
        and (state.consumers or state.name not in discovered)
        for state in states
    )


def table_of(states: Iterable[TableState], now: float) -> str:
    """Return a line for each consumer, and one for each table without any.

    Args:
        states: what is known of the tables.
        now: Unix time.
    """
    lines: list[tuple[str, ...]] = [COLUMNS]
    for state in states:
        head = _text(state.head.version if state.head else None)
        if not state.consumers:
            reason = state.error.reason if state.error else "no consumer"
            lines.append((NO_CONSUMER, state.name, head, *[""] * 6, reason))
        for of in state.consumers:
            lines.append((of.consumer.name, state.name, head, *_numbers(of, now), _state(of)))
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    text_columns = (0, 1, len(COLUMNS) - 1)
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in text_columns else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _numbers(of: ConsumerState, now: float) -> list[str]:
    backlog = of.backlog
    if backlog is None:
        return [UNKNOWN] * 6
    seconds = lag_seconds(of, now)
    amount = backlog.amount or (None, None, None)
    return [
        str(backlog.version) if backlog.version >= 0 else "none",
        _text(backlog.versions),
        _text(None if seconds is None else round(seconds)),
        *map(_text, amount),
    ]


def _state(of: ConsumerState) -> str:
    if of.error:
        return of.error.reason
    if of.backlog and of.backlog.version < 0:
        state = "first read"
    else:
        state = "behind" if of.backlog and of.backlog.versions else "up to date"
    if of.backlog and of.backlog.rewrites:
        state += f", {of.backlog.rewrites} {'rewrite' if of.backlog.rewrites == 1 else 'rewrites'}"
    return state


def _text(number: int | None) -> str:
    return UNKNOWN if number is None else f"{number:,}"
