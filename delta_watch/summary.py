"""What is known of each consumer at one moment, in the same words for the table, JSON, the page and the metrics."""

from collections.abc import Collection, Iterable, Iterator
from typing import Any, Literal, NamedTuple

from .backlog import Backlog
from .errors import Reason, WatchError
from .table import Head
from .watcher import ConsumerState, TableState

State = Literal["unknown", "behind", "first_read", "up_to_date", "no_consumer"]  # the worst first

UNKNOWN = "?"


class Lag(NamedTuple):
    """The lag of a consumer. What is unknown is None.

    Args:
        table: the name of the table.
        consumer: the name of the consumer; None in the line of a table without any, or whose consumers are unknown.
        table_version: the last version of the table.
        version: the last version read completely, or −1 if there is none yet.
        lag_versions: versions that are not read completely.
        lag_seconds: age of the oldest one of them.
        backlog_files: files that are not read yet.
        backlog_bytes: their bytes.
        backlog_rows: their rows.
        state: all of that in a word.
        reason: why something is unknown.
        message: the same as a sentence that says what to do.
        rewrites: unread commits that also remove rows.
        retention_seconds: time until the log that the consumer still needs may be cleaned up.
    """

    table: str
    consumer: str | None
    table_version: int | None
    version: int | None = None
    lag_versions: int | None = None
    lag_seconds: float | None = None
    backlog_files: int | None = None
    backlog_bytes: int | None = None
    backlog_rows: int | None = None
    state: State = "no_consumer"
    reason: Reason | None = None
    message: str = ""
    rewrites: int | None = None
    retention_seconds: float | None = None


def lags(states: Iterable[TableState], now: float) -> Iterator[Lag]:
    """Yield a line for each consumer, and one for each table without any, or whose consumers may be missing.

    Args:
        states: what is known of the tables.
        now: Unix time.
    """
    for table in states:
        head = table.head.version if table.head else None
        # Each consumer has the error of its table already, unless the head is known.
        if not table.consumers or (table.error and table.head):
            yield Lag(table.name, None, head)._replace(**_why(table.error))
        for state in table.consumers:
            lag = Lag(table.name, state.consumer.name, head, state="unknown")
            if backlog := state.backlog:
                files, size, rows = backlog.amount or (None, None, None)
                lag = lag._replace(
                    version=backlog.version,
                    lag_versions=backlog.versions,
                    lag_seconds=lag_seconds(state, now),
                    backlog_files=files,
                    backlog_bytes=size,
                    backlog_rows=rows,
                    state="first_read" if backlog.version < 0 else "behind" if backlog.versions else "up_to_date",
                    rewrites=backlog.rewrites,
                    retention_seconds=retention_seconds(state, table.head, now),
                )
            yield lag._replace(**_why(state.error))


def _why(error: WatchError | None) -> dict[str, Any]:
    return {"state": "unknown", "reason": error.reason, "message": str(error)} if error else {}


def is_known(states: Iterable[TableState], discovered: Collection[str] = ()) -> bool:
    """Return whether each part of all lags is known, and each discovery has found a consumer.

    Args:
        states: what is known of the tables.
        discovered: the names of the tables whose consumers were to be discovered.
    """
    return all(
        not table.error
        and all(not state.error and _is_whole(state.backlog) for state in table.consumers)
        and (table.consumers or table.name not in discovered)
        for table in states
    )


def _is_whole(backlog: Backlog | None) -> bool:
    """Return whether no part of a lag is unknown."""
    if backlog is None or backlog.amount is None or backlog.amount.rows is None:
        return False
    return backlog.versions == 0 or backlog.since is not None


def lag_seconds(state: ConsumerState, now: float) -> float | None:
    """Return the age of the oldest commit that a consumer has not read completely, None if unknown."""
    if state.backlog is None:
        return None
    return 0 if state.backlog.versions == 0 else _age(state.backlog.since, now)


def retention_seconds(state: ConsumerState, head: Head | None, now: float) -> float | None:
    """Return the time until that commit may be cleaned up, negative once it may be; None if there is no such time."""
    if not (state.backlog and state.backlog.since and head and head.retention):
        return None
    return state.backlog.since + head.retention - now


def running_seconds(state: ConsumerState, now: float) -> float | None:
    """Return the time since the unfinished batch was planned, 0 if there is none, None if unknown."""
    if state.progress is None:
        return None
    return _age(state.progress.planned, now) if state.progress.is_running else 0


def words(lag: Lag) -> str:
    """Return the state in words."""
    state = lag.state.replace("_", " ")
    return f"{state}, {lag.rewrites} rewrite{'s' if lag.rewrites > 1 else ''}" if lag.rewrites else state


def number(value: float | None) -> str:
    """Return a whole number with commas."""
    return UNKNOWN if value is None else f"{round(value):,}"


def _age(since: float | None, now: float) -> float | None:
    return None if since is None else max(now - since, 0)
