"""What a watcher of three consumers answers Prometheus: one that is behind, one that is up to date, one unknown."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from types import SimpleNamespace
from typing import Any

from delta_watch.backlog import NOTHING, Amount, Backlog
from delta_watch.checkpoint import Progress
from delta_watch.errors import WatchError
from delta_watch.exporter import WatcherCollector
from delta_watch.offsets import Batch
from delta_watch.table import Head
from delta_watch.watcher import Consumer, ConsumerState, FinishedRound, TableState

from prometheus_client import CollectorRegistry, Metric, start_http_server
from prometheus_client.registry import Collector

VISITS = "default.visits"
ORDERS = "/data/my orders"


def metrics(now: float, rounds: int) -> Iterable[Metric]:
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
        last_round=FinishedRound(now, 0.25),
    )
    return WatcherCollector(watcher, clock=lambda: now).collect()


class _Rounds(Collector):
    def __init__(self) -> None:
        self._rounds = count(1)

    def collect(self) -> Iterable[Metric]:
        return metrics(time.time(), next(self._rounds))


@contextmanager
def watcher() -> Iterator[str]:
    """Answer Prometheus with a new round for each scrape, and yield host and port."""
    registry = CollectorRegistry()
    registry.register(_Rounds())
    httpd, _ = start_http_server(0, "127.0.0.1", registry)
    try:
        yield f"127.0.0.1:{httpd.server_port}"
    finally:
        httpd.shutdown()
        httpd.server_close()
