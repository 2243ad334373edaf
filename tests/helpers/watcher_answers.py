"""What a watcher of three consumers answers Prometheus: one that is behind, one that is up to date, one unknown."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from itertools import count
from types import SimpleNamespace
from typing import Any

from delta_watch.backlog import NOTHING, Amount, Backlog
from delta_watch.checkpoint import Batch
from delta_watch.errors import WatchError
from delta_watch.exporter import exposition
from delta_watch.query import Progress
from delta_watch.table import Head
from delta_watch.watcher import Consumer, ConsumerState, Round, TableState
from tests.helpers.http_servers import serve

VISITS = "default.visits"
ORDERS = "/data/my orders"


def metrics(now: float, rounds: int) -> str:
    """Return what the exporter makes of these results: behind by 3 versions, up to date, and unknown.

    Args:
        now: Unix time at the end of the round.
        rounds: how many rounds there have been.
    """
    batch = Batch(now, ())
    fraud = ConsumerState(
        Consumer("fraud", VISITS, ""),
        Progress(batch, is_running=True, planned=now - 3700),
        Backlog(version=6, versions=3, since=now - 4000, amount=Amount(5, 4096, 9), rewrites=1),
    )
    search = ConsumerState(Consumer("search", ORDERS, ""), Progress(batch), Backlog(4, 0, None, NOTHING, 0))
    lost = ConsumerState(Consumer("lost", VISITS, ""), error=WatchError("corrupt", "is not valid JSON"))
    watcher: Any = SimpleNamespace(
        states=[
            TableState(VISITS, Head(9, now - 100), (fraud, lost)),
            TableState(ORDERS, Head(4, now - 200), (search,)),
        ],
        errors={VISITS: Counter({("lost", "corrupt"): rounds})},
        last_round=Round(now, 0.25),
    )
    return exposition(watcher, now)


@contextmanager
def watcher() -> Iterator[str]:
    """Answer Prometheus with a new round for each scrape, and yield host and port."""
    rounds = count(1)

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "text/plain; version=0.0.4")
        request.end_headers()
        request.wfile.write(metrics(time.time(), next(rounds)).encode())

    with serve(answer) as address:
        yield address
