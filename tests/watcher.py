"""What a watcher of three consumers answers Prometheus: one that is behind, one that is up to date, one unknown."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from itertools import count

from tests.servers import serve

VISITS = "default.visits"
ORDERS = "/data/my orders"
# Their labels: behind by 3 versions, up to date, and with a checkpoint that cannot be read.
FRAUD = f'{{table="{VISITS}",consumer="fraud"}}'
SEARCH = f'{{table="{ORDERS}",consumer="search"}}'
LOST = f'{{table="{VISITS}",consumer="lost"}}'


def metrics(now: float, rounds: int) -> str:
    """Return the metrics in Prometheus' text format.

    Args:
        now: Unix time at the end of the round.
        rounds: how many rounds there have been.
    """
    consumers = {
        "version": (6, 4),
        "lag_versions": (3, 0),
        "lag_seconds": (4000, 0),
        "backlog_files": (5, 0),
        "backlog_bytes": (4096, 0),
        "backlog_rows": (9, 0),
        "pending_rewrites": (1, 0),
        "batch_running_seconds": (3700, 0),
    }
    lines = [
        "# TYPE delta_table_version gauge",
        f'delta_table_version{{table="{VISITS}"}} 9',
        f'delta_table_version{{table="{ORDERS}"}} 4',
        "# TYPE delta_table_commit_timestamp_seconds gauge",
        f'delta_table_commit_timestamp_seconds{{table="{VISITS}"}} {now - 100}',
        f'delta_table_commit_timestamp_seconds{{table="{ORDERS}"}} {now - 200}',
    ]
    for name, (fraud, search) in consumers.items():
        lines.append(f"# TYPE delta_consumer_{name} gauge")
        lines += [f"delta_consumer_{name}{FRAUD} {fraud}", f"delta_consumer_{name}{SEARCH} {search}"]
    lines += [
        "# TYPE delta_watch_up gauge",
        *(f"delta_watch_up{labels} {up}" for labels, up in ((FRAUD, 1), (SEARCH, 1), (LOST, 0))),
        "# TYPE delta_watch_errors_total counter",
        f'delta_watch_errors_total{LOST[:-1]},reason="corrupt"}} {rounds}',
        "# TYPE delta_watch_round_duration_seconds gauge",
        "delta_watch_round_duration_seconds 0.25",
        "# TYPE delta_watch_last_round_timestamp_seconds gauge",
        f"delta_watch_last_round_timestamp_seconds {now}",
    ]
    return "\n".join([*lines, ""])


@contextmanager
def watcher() -> Iterator[str]:
    """Answer Prometheus as a watcher does, with a new round for each scrape, and yield its host and port."""
    rounds = count(1)

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "text/plain; version=0.0.4")
        request.end_headers()
        request.wfile.write(metrics(time.time(), next(rounds)).encode())

    with serve(answer) as address:
        yield address
