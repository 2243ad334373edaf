"""Render the page. Filter, order and pages are parts of its address, so that it works without JavaScript."""

import re
from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timezone
from hashlib import sha256
from html import escape
from pathlib import Path
from string import Template
from typing import Any, get_args
from urllib.parse import urlencode

from .summary import UNKNOWN, Lag, State, number, words

TEMPLATE = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
ROWS = 200  # on one page
SOON = 86400  # seconds of retention left, as in the rule DeltaConsumerRetention
STATES: tuple[State, ...] = get_args(State)
COLUMNS = {
    "state": "State",
    "consumer": "Consumer",
    "table": "Table",
    "lag_versions": "Versions",
    "lag_seconds": "Time",
    "backlog_files": "Files",
    "backlog_bytes": "Bytes",
    "backlog_rows": "Rows",
}
NUMBERS = list(COLUMNS)[3:]
UNITS = {"d": 86400, "h": 3600, "min": 60, "s": 1}

# Nothing that a name contains may run, and nothing comes from elsewhere.
_SCRIPT = b64encode(sha256(re.findall("(?s)<script>(.*)</script>", TEMPLATE)[0].encode()).digest()).decode()
HEADERS = [
    (
        "Content-Security-Policy",
        f"default-src 'none'; script-src 'sha256-{_SCRIPT}'; style-src 'unsafe-inline'; img-src data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Cache-Control", "no-store"),
]


def render(lags: Sequence[Lag], request: dict[str, str], version: str, ended: float | None) -> str:
    """Return the page.

    Args:
        lags: all lines.
        request: what the address asks for: `q`, text to find; `sort`, a column, `-` before it for the largest first;
            `from`, the number of the first line.
        version: that of delta-watch.
        ended: when the last round ended, in Unix time; None if none has.
    """
    wanted = request.get("q", "").casefold().split()
    found = sorted((lag for lag in lags if all(word in _text(lag) for word in wanted)), key=_badness)
    column = request.get("sort", "").removeprefix("-")
    if column in COLUMNS:
        found = _sorted(found, column, request["sort"].startswith("-"))
    digits = request.get("from", "")
    first = min(int(digits), len(found)) if re.fullmatch("[0-9]{1,9}", digits) else 0
    shown = found[first : first + ROWS]
    count = Counter(lag.state for lag in lags)
    totals = [(state, count[state]) for state in STATES if count[state]]
    clock = datetime.fromtimestamp(ended, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC") if ended else ""
    if not lags:
        nothing = "There is no table to show." if ended else "The first round has not ended yet."
    else:
        nothing = "" if found else "Nothing contains this text."
    return Template(TEMPLATE).substitute(
        title=", ".join(f"{total:,} {_words(state)}" for state, total in totals[:2]) or "Delta consumers",
        version=escape(version),
        ended=f"Last round: {clock}" if clock else "",
        q=escape(request.get("q", "")),
        sort=escape(request.get("sort", "")),
        totals=" ".join(
            f'<a class="state {state}" href="{_link({}, q=_words(state))}">{total:,} {_words(state)}</a>'
            for state, total in totals
        ),
        header="".join(_header(name, title, request) for name, title in COLUMNS.items()),
        rows="\n".join(map(_row, shown)),
        nothing=nothing,
        pages=_pages(request, first, len(shown), len(found)),
    )


def duration(seconds: float | None) -> str:
    """Return a time in its two largest units, such as `1 h 6 min`."""
    if seconds is None:
        return UNKNOWN
    parts: list[str] = []
    rest = round(seconds)
    for unit, size in UNITS.items():
        count, rest = divmod(rest, size)
        if count or parts or unit == "s":
            parts.append(f"{count} {unit}" if count or not parts else "")  # so that 1 day and 5 s is 1 day
    return " ".join(part for part in parts[:2] if part)


def size(count: int | None) -> str:
    """Return a number of bytes in the largest unit that leaves a number from 1 on, such as `4.1 kB`."""
    if count is None:
        return UNKNOWN
    value, prefixes = float(count), " kMGTPE"
    while value >= 999.5 and len(prefixes) > 1:
        value, prefixes = value / 1000, prefixes[1:]
    return f"{value:.3g} {prefixes[0].strip()}B"


def _badness(lag: Lag) -> tuple[Any, ...]:
    is_urgent = lag.retention_seconds is not None and lag.retention_seconds < SOON
    behind = lag.lag_seconds or 0, lag.lag_versions or 0
    return not is_urgent, STATES.index(lag.state), -behind[0], -behind[1], lag.table, lag.consumer or ""


def _sorted(lags: list[Lag], column: str, reverse: bool) -> list[Lag]:
    """Return these by a column, with what is unknown at the end."""
    rank = {lag: STATES.index(lag.state) if column == "state" else getattr(lag, column) for lag in lags}
    known = [lag for lag in lags if rank[lag] is not None]
    return sorted(known, key=rank.__getitem__, reverse=reverse) + [lag for lag in lags if rank[lag] is None]


def _text(lag: Lag) -> str:
    return " ".join((lag.consumer or "", lag.table, words(lag), lag.reason or "", _advice(lag))).casefold()


def _words(state: str) -> str:
    return state.replace("_", " ")


def _advice(lag: Lag) -> str:
    """Return why something is unknown, or what is urgent, and what to do."""
    if lag.message:
        return f"{lag.message[:1].upper()}{lag.message[1:]} ({lag.reason})"
    left = lag.retention_seconds
    if left is None or left >= SOON:
        return ""
    when = "now" if left <= 0 else f"in {duration(left)}"
    return f"The log that it still needs may be cleaned up {when}; let it catch up, or raise delta.logRetentionDuration"


def _row(lag: Lag) -> str:
    advice = _advice(lag)
    urgent = " urgent" if advice and not lag.message else ""
    cells = {
        "lag_versions": number(lag.lag_versions),
        "lag_seconds": duration(lag.lag_seconds),
        "backlog_files": number(lag.backlog_files),
        "backlog_bytes": size(lag.backlog_bytes),
        "backlog_rows": number(lag.backlog_rows),
    }
    consumer = "<i>none</i>" if lag.consumer is None else escape(lag.consumer)
    return (
        f'<tr><td><span class="state {lag.state}{urgent}">{words(lag)}</span>'
        f'<th scope="row">{consumer}{f"<p>{escape(advice)}</p>" if advice else ""}<td>{escape(lag.table)}'
        + "".join(
            _number(COLUMNS[name], getattr(lag, name), cells[name]) for name in NUMBERS if lag.consumer is not None
        )
    )


def _number(title: str, exact: float | None, text: str) -> str:
    hint = "unknown" if exact is None else f"{round(exact):,}"
    return f'<td class="number" data-title="{title}" title="{hint}">{text}'


def _header(name: str, title: str, request: dict[str, str]) -> str:
    """Return the head of a column. A number sorts by its largest values first; the next click reverses the order."""
    now = request.get("sort", "")
    first, second = (f"-{name}", name) if name in NUMBERS else (name, f"-{name}")
    order = {name: "ascending", f"-{name}": "descending"}.get(now, "")
    aria = f' aria-sort="{order}"' if order else ""
    kind = ' class="number"' if name in NUMBERS else ""
    link = _link(request, sort=second if now == first else first)
    return f'<th scope="col"{kind}{aria}><a id="by-{name}" href="{link}">{title}</a>'


def _pages(request: dict[str, str], first: int, shown: int, count: int) -> str:
    parts = [f"{first + 1:,} to {first + shown:,} of {count:,}"] if count > shown and shown else []
    if first:
        parts.insert(0, f'<a href="{_link(request, start=max(first - ROWS, 0))}">Previous</a>')
    if first + shown < count:
        parts.append(f'<a href="{_link(request, start=first + ROWS)}">Next</a>')
    return " ".join(parts)


def _link(request: dict[str, str], start: int = 0, **changes: str) -> str:
    """Return a link to this page with these changes."""
    wanted = {key: request[key] for key in ("q", "sort") if request.get(key)} | changes
    return escape("?" + urlencode({**wanted, **({"from": start} if start else {})}))
