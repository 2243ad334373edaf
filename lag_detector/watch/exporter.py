"""Serve the last results as metrics for Prometheus."""

import hmac
import time
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .watcher import ConsumerState, TableState, Watcher

PORT = 9464
ADDRESS = "127.0.0.1"
CLIENT_TIMEOUT = 10  # seconds until a client that sends nothing is disconnected

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


@dataclass(frozen=True)
class Server:
    """How to serve the metrics.

    Args:
        address: IP address or host name to listen on.
        port: port to listen on; 0 for any that is free.
        certificate: path of the certificate for TLS, and `private_key` that of its key; None for plain HTTP.
        username: who may read the metrics, with this `password`; None for anyone.
    """

    address: str = ADDRESS
    port: int = PORT
    certificate: str | None = None
    private_key: str | None = None
    username: str | None = None
    password: str = ""


class WatchCollector(Collector):
    """The metrics. What is unknown has no series; times count until the scrape."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def describe(self) -> list[Metric]:
        """Return nothing: the names need not be known before the first round."""
        return []

    def collect(self) -> Iterator[Metric]:
        states, now = self._watcher.states, time.time()
        yield from _table_metrics(states)
        yield from _consumer_metrics([(state, of) for state in states for of in state.consumers], now)
        yield self._errors()
        if last_round := self._watcher.last_round:
            yield GaugeMetricFamily(
                "delta_watch_round_duration_seconds", "How long the last round took", last_round.seconds
            )
            yield GaugeMetricFamily(
                "delta_watch_last_round_timestamp_seconds", "When the last round ended, in Unix time", last_round.ended
            )

    def _errors(self) -> Metric:
        errors = CounterMetricFamily(
            "delta_watch_errors", "Rounds in which the lag was unknown", labels=["table", "consumer", "reason"]
        )
        for table, counts in self._watcher.errors.items():
            for (consumer, reason), count in list(counts.items()):
                errors.add_metric([table, consumer, reason], count)
        return errors


def _table_metrics(states: list[TableState]) -> Iterator[Metric]:
    version = GaugeMetricFamily("delta_table_version", "Last version of the table", labels=["table"])
    timestamp = GaugeMetricFamily(
        "delta_table_commit_timestamp_seconds", "When that version was committed, in Unix time", labels=["table"]
    )
    for state in states:
        if state.head:
            version.add_metric([state.name], state.head.version)
            if state.head.timestamp is not None:
                timestamp.add_metric([state.name], state.head.timestamp)
    yield version
    yield timestamp


def _consumer_metrics(states: list[tuple[TableState, ConsumerState]], now: float) -> Iterator[Metric]:
    def gauge(name: str, documentation: str, value: Callable[[ConsumerState], float | None]) -> Metric:
        family = GaugeMetricFamily(name, documentation, labels=["table", "consumer"])
        for table, state in states:
            if (known := value(state)) is not None:
                family.add_metric([table.name, state.consumer.name], known)
        return family

    yield gauge(
        "delta_consumer_version",
        "Last version that the consumer has read completely, -1 if there is none yet",
        lambda of: of.backlog.version if of.backlog else None,
    )
    yield gauge(
        "delta_consumer_lag_versions",
        "Versions that the consumer has not read completely",
        lambda of: of.backlog.versions if of.backlog else None,
    )
    yield gauge(
        "delta_consumer_lag_seconds",
        "Age of the oldest commit that the consumer has not read completely, 0 if there is none",
        lambda of: lag_seconds(of, now),
    )
    yield gauge(
        "delta_consumer_backlog_files",
        "Files that the consumer is going to read",
        lambda of: of.backlog.amount.files if of.backlog and of.backlog.amount else None,
    )
    yield gauge(
        "delta_consumer_backlog_bytes",
        "Bytes of the files that the consumer is going to read",
        lambda of: of.backlog.amount.bytes if of.backlog and of.backlog.amount else None,
    )
    yield gauge(
        "delta_consumer_backlog_rows",
        "Rows that the consumer is going to read",
        lambda of: of.backlog.amount.rows if of.backlog and of.backlog.amount else None,
    )
    yield gauge(
        "delta_consumer_pending_rewrites",
        "Unread commits that also remove rows",
        lambda of: of.backlog.rewrites if of.backlog else None,
    )
    yield gauge(
        "delta_consumer_batch_running_seconds",
        "How long ago the batch was planned that is not done yet, 0 if there is none",
        lambda of: running_seconds(of, now),
    )
    yield gauge("delta_watch_up", "Whether the last round could determine the lag", lambda of: float(of.error is None))


def lag_seconds(of: ConsumerState, now: float) -> float | None:
    """Return the age of the oldest commit that a consumer has not read completely; None if it is unknown."""
    if of.backlog is None:
        return None
    if of.backlog.versions == 0:
        return 0
    return None if of.backlog.since is None else max(now - of.backlog.since, 0)


def running_seconds(of: ConsumerState, now: float) -> float | None:
    """Return how long ago the batch was planned that runs, 0 if none does; None if it is unknown."""
    if of.progress is None:
        return None
    if not of.progress.is_running:
        return 0
    return None if of.progress.planned is None else max(now - of.progress.planned, 0)


def serve(watcher: Watcher, server: Server) -> WSGIServer:
    """Serve the metrics from threads in the background, until the process ends or `shutdown` is called.

    Raises:
        OSError: the port is taken, or the certificate cannot be read.
    """
    registry = CollectorRegistry()
    # Nothing is registered before the password is checked.
    httpd, _ = start_http_server(
        server.port, server.address, registry, certfile=server.certificate, keyfile=server.private_key
    )
    if server.certificate:
        # By default the one thread that accepts connections would wait for each client's handshake.
        httpd.socket.do_handshake_on_connect = False  # type: ignore[attr-defined]
    handler: Any = httpd.RequestHandlerClass
    httpd.RequestHandlerClass = type("Handler", (handler,), {"timeout": CLIENT_TIMEOUT})
    app: App = make_wsgi_app(registry)
    httpd.set_app(app if server.username is None else _with_password(app, server.username, server.password))
    registry.register(WatchCollector(watcher))
    return httpd


def _with_password(app: App, username: str, password: str) -> App:
    """Answer only requests with this name and password."""
    expected = f"{username}:{password}".encode()

    def checked(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        scheme, _, login = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        try:
            given = b64decode(login)
        except ValueError:
            given = b""
        if scheme.lower() == "basic" and hmac.compare_digest(given, expected):
            return app(environ, start_response)
        start_response("401 Unauthorized", [("WWW-Authenticate", 'Basic realm="delta-watch"')])
        return [b"Name or password is wrong.\n"]

    return checked
