"""Serve the last results as metrics for Prometheus."""

import gzip
import hmac
import time
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from .watcher import ConsumerState, TableState, Watcher

PORT = 9464
ADDRESS = "127.0.0.1"
CLIENT_TIMEOUT = 10  # seconds until a client that sends nothing is disconnected

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
Value = float | None


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


class _Metric(NamedTuple):
    name: str
    help: str
    kind: str = "gauge"


TABLE_METRICS = (
    _Metric("delta_table_version", "Last version of the table"),
    _Metric("delta_table_commit_timestamp_seconds", "When that version was committed, in Unix time"),
)
CONSUMER_METRICS = (
    _Metric("delta_consumer_version", "Last version that the consumer has read completely, -1 if there is none yet"),
    _Metric("delta_consumer_lag_versions", "Versions that the consumer has not read completely"),
    _Metric(
        "delta_consumer_lag_seconds", "Age of the oldest commit that the consumer has not read completely, 0 if none"
    ),
    _Metric("delta_consumer_backlog_files", "Files that the consumer is going to read"),
    _Metric("delta_consumer_backlog_bytes", "Bytes of the files that the consumer is going to read"),
    _Metric("delta_consumer_backlog_rows", "Rows that the consumer is going to read"),
    _Metric("delta_consumer_pending_rewrites", "Unread commits that also remove rows"),
    _Metric(
        "delta_consumer_batch_running_seconds", "How long ago the batch that is not done yet was planned, 0 if none is"
    ),
    _Metric("delta_watch_up", "Whether the last round could determine the lag"),
)
ERRORS = _Metric("delta_watch_errors_total", "Rounds in which the lag was unknown, by reason", "counter")
DURATION = _Metric("delta_watch_round_duration_seconds", "How long the last round took")
LAST_ROUND = _Metric("delta_watch_last_round_timestamp_seconds", "When the last round ended, in Unix time")


def table_values(of: TableState) -> tuple[Value, ...]:
    """Return the value of each of the TABLE_METRICS."""
    return (of.head.version, of.head.timestamp) if of.head else (None, None)


def consumer_values(of: ConsumerState, now: float) -> tuple[Value, ...]:
    """Return the value of each of the CONSUMER_METRICS.

    Args:
        of: what is known of the consumer.
        now: Unix time, up to which the ages count.
    """
    running, up = running_seconds(of, now), int(of.error is None)
    backlog = of.backlog
    if backlog is None:
        return (None,) * 7 + (running, up)
    amount = backlog.amount or (None, None, None)
    return (backlog.version, backlog.versions, lag_seconds(of, now), *amount, backlog.rewrites, running, up)


def lag_seconds(of: ConsumerState, now: float) -> Value:
    """Return the age of the oldest commit that a consumer has not read completely; None if it is unknown."""
    if of.backlog is None:
        return None
    if of.backlog.versions == 0:
        return 0
    return None if of.backlog.since is None else max(now - of.backlog.since, 0)


def running_seconds(of: ConsumerState, now: float) -> Value:
    """Return how long ago the batch that runs was planned, 0 if none runs; None if it is unknown."""
    if of.progress is None:
        return None
    if not of.progress.is_running:
        return 0
    return None if of.progress.planned is None else max(now - of.progress.planned, 0)


def exposition(watcher: Watcher, now: float) -> str:
    """Return the metrics in Prometheus' text format. What is unknown has no series.

    Not by a collector of the Prometheus client: that one takes four times as long with a thousand consumers.

    Args:
        watcher: whose results to show.
        now: Unix time, up to which the ages count.
    """
    return "".join(f"{line}\n" for line in _lines(watcher, now))


def serve(watcher: Watcher, server: Server) -> WSGIServer:
    """Serve the metrics from threads in the background, until the process ends or `shutdown` is called.

    Raises:
        OSError: the port is taken, or the certificate cannot be read.
    """
    httpd, _ = start_http_server(
        server.port, server.address, CollectorRegistry(), certfile=server.certificate, keyfile=server.private_key
    )
    # A client that goes away is none of our business, and one that sends nothing must not stay. By default, the thread
    # that accepts connections would wait for each client's handshake.
    tuned: Any = httpd
    handler: Any = httpd.RequestHandlerClass
    tuned.handle_error = lambda request, client: None
    tuned.RequestHandlerClass = type("Handler", (handler,), {"timeout": CLIENT_TIMEOUT})
    if server.certificate:
        tuned.socket.do_handshake_on_connect = False
    app = _app(watcher)
    httpd.set_app(app if server.username is None else _with_password(app, server.username, server.password))
    return httpd


def _lines(watcher: Watcher, now: float) -> Iterator[str]:
    states = watcher.states
    tables = [(_labels(table=state.name), state) for state in states]
    consumers = [
        (_labels(table=state.name, consumer=of.consumer.name), of) for state in states for of in state.consumers
    ]
    yield from _families(TABLE_METRICS, [(labels, table_values(state)) for labels, state in tables])
    yield from _families(CONSUMER_METRICS, [(labels, consumer_values(state, now)) for labels, state in consumers])
    errors = (
        (_labels(table=table, consumer=consumer, reason=reason), count)
        for table, counts in list(watcher.errors.items())
        for (consumer, reason), count in list(counts.items())
    )
    yield from _samples(ERRORS, errors)
    if last := watcher.last_round:
        yield from _samples(DURATION, [("", last.seconds)])
        yield from _samples(LAST_ROUND, [("", last.ended)])


def _families(metrics: tuple[_Metric, ...], rows: list[tuple[str, tuple[Value, ...]]]) -> Iterator[str]:
    for column, metric in enumerate(metrics):
        yield from _samples(metric, ((labels, values[column]) for labels, values in rows))


def _samples(metric: _Metric, values: Iterable[tuple[str, Value]]) -> Iterator[str]:
    yield f"# HELP {metric.name} {metric.help}"
    yield f"# TYPE {metric.name} {metric.kind}"
    for labels, value in values:
        if value is not None:
            yield f"{metric.name}{labels} {value}"


def _labels(**labels: str) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _app(watcher: Watcher) -> App:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "GET":
            start_response("405 Method Not Allowed", [("Allow", "GET")])
            return [b"Use GET.\n"]
        body = exposition(watcher, time.time()).encode()
        headers = [("Content-Type", CONTENT_TYPE_PLAIN_0_0_4)]
        if "gzip" in environ.get("HTTP_ACCEPT_ENCODING", ""):
            body = gzip.compress(body, compresslevel=1)
            headers.append(("Content-Encoding", "gzip"))
        start_response("200 OK", headers)
        return [body]

    return app


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
        return [b"The name or the password is wrong.\n"]

    return checked
