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

import pytest
from prometheus_client import CollectorRegistry, Metric, start_http_server
from prometheus_client.registry import Collector

VISITS = "default.visits"
ORDERS = "/data/my orders"


def answers(now: float, rounds: int = 1, more: Iterable[TableState] = ()) -> WatcherCollector:
    """Return what the exporter makes of these results: behind by 3 versions, up to date, and unknown.

    Args:
        now: Unix time at the end of the round.
        rounds: how many rounds there have been.
        more: what is known of other tables.
    """
    batch = Batch(now, ())
    fraud = ConsumerState(
        Consumer("fraud", VISITS, ""),
        Progress(batch, is_running=True, planned=now - 3700, number=7, committed=now - 3800),
        Backlog(version=6, versions=3, since=now - 4000, amount=Amount(5, 4096, 9), rewrites=1),
    )
    search = ConsumerState(
        Consumer("search", ORDERS, ""), Progress(batch, number=3, committed=now - 300), Backlog(4, 0, None, NOTHING, 0)
    )
    lost = ConsumerState(
        Consumer("lost", VISITS, ""),
        error=WatchError("corrupt", "/jobs/lost/offsets/7 is not a batch; restore the checkpoint if this persists"),
    )
    watcher: Any = SimpleNamespace(
        states=[
            TableState(VISITS, Head(9, now - 100, retention=86400), (fraud, lost)),
            TableState(ORDERS, Head(4, now - 200), (search,)),
            *more,
        ],
        errors={VISITS: Counter({("lost", "corrupt"): rounds})},
        last_round=FinishedRound(now, 0.25),
        inventory=SimpleNamespace(searches=Counter(success=rounds), unmatched={}),
    )
    collector = WatcherCollector(watcher, clock=lambda: now)
    collector.rounds = rounds
    return collector


def behind(table: str, names: Iterable[str], now: float) -> TableState:
    """Return a table whose consumers are behind by 1, 2, 3 … versions, which are as many minutes old."""
    states = [
        ConsumerState(
            Consumer(name, table, ""),
            None,
            Backlog(9 - number, number, now - 60 * number, Amount(number, 1234 * number, 56 * number), 0),
        )
        for number, name in enumerate(names, 1)
    ]
    return TableState(table, Head(9, now), tuple(states))


def metrics(now: float, rounds: int) -> Iterable[Metric]:
    """Return the metrics of these results, with the requests of a watcher that reads a bucket."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("delta_watch.exporter.requests", Counter({"head": 2 * rounds}))
        return list(answers(now, rounds).collect())


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
