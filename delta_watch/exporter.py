"""Serve the last results as metrics for Prometheus."""

import hmac
import time
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any
from wsgiref.simple_server import WSGIServer

from msgspec import Meta, Struct
from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, Sample
from prometheus_client.registry import Collector

from .watcher import ConsumerState, TableState, Text, Watcher

CLIENT_TIMEOUT = 10  # seconds until a client that sends nothing is disconnected

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
Value = float | None

# The name of each gauge and its help, in the order of `table_values` and `consumer_values`.
TABLE_GAUGES = {
    "delta_table_version": "Last version of the table",
    "delta_table_commit_timestamp_seconds": "When that version was committed, in Unix time",
}
CONSUMER_GAUGES = {
    "delta_consumer_version": "Last version that the consumer has read completely, -1 if there is none yet",
    "delta_consumer_lag_versions": "Versions that the consumer has not read completely",
    "delta_consumer_lag_seconds": "Age of the oldest commit that the consumer has not read completely, 0 if none",
    "delta_consumer_backlog_files": "Files that the consumer has not read yet",
    "delta_consumer_backlog_bytes": "Bytes of the files that the consumer has not read yet",
    "delta_consumer_backlog_rows": "Rows that the consumer has not read yet",
    "delta_consumer_pending_rewrites": "Unread commits that also remove rows",
    "delta_consumer_batch_running_seconds": "Time since the unfinished batch was planned, 0 if there is none",
    "delta_watch_up": "Whether the last round found the lag",
}
ERRORS = "delta_watch_errors_total", "Rounds that did not find the lag, by reason"
DURATION = "delta_watch_round_duration_seconds", "How long the last round took"
LAST_ROUND = "delta_watch_last_round_timestamp_seconds", "When the last round ended, in Unix time"


class Server(Struct, frozen=True, forbid_unknown_fields=True):
    """How to serve the metrics.

    Args:
        address: IP address or host name to listen on.
        port: port to listen on; 0 for any that is free.
        certificate: path of the certificate for TLS, and `private_key` that of its key; None for plain HTTP.
        username: who may read the metrics, with the password in `password_file`; None for anyone.
    """

    address: Text = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 9464
    certificate: Text | None = None
    private_key: Text | None = None
    username: Text | None = None
    password_file: Text | None = None

    @property
    def password(self) -> str:
        """The password, empty if there is none."""
        return Path(self.password_file).read_text(encoding="utf-8").rstrip("\n") if self.password_file else ""


class WatcherCollector(Collector):
    """Collect the last results. What is unknown has no sample.

    Args:
        watcher: whose results to show.
        clock: returns the Unix time up to which ages count.
    """

    def __init__(self, watcher: Watcher, clock: Callable[[], float] = time.time) -> None:
        self._watcher, self._clock = watcher, clock

    def collect(self) -> Iterator[Metric]:
        """Yield each metric with the values of this moment."""
        now, states = self._clock(), self._watcher.states
        tables = [({"table": table.name}, table_values(table)) for table in states]
        yield from _gauges(TABLE_GAUGES, tables)
        consumers = [
            ({"table": table.name, "consumer": state.consumer.name}, consumer_values(state, now))
            for table in states
            for state in table.consumers
        ]
        yield from _gauges(CONSUMER_GAUGES, consumers)
        errors = CounterMetricFamily(*ERRORS, labels=("table", "consumer", "reason"))
        for table_name, counts in list(self._watcher.errors.items()):
            for (consumer_name, reason), count in list(counts.items()):
                errors.add_metric((table_name, consumer_name, reason), count)
        yield errors
        if last := self._watcher.last_round:
            yield GaugeMetricFamily(*DURATION, last.seconds)
            yield GaugeMetricFamily(*LAST_ROUND, last.ended)


def table_values(state: TableState) -> tuple[Value, ...]:
    """Return the value of each of the TABLE_GAUGES, None if unknown."""
    return (state.head.version, state.head.timestamp) if state.head else (None, None)


def consumer_values(state: ConsumerState, now: float) -> tuple[Value, ...]:
    """Return the value of each of the CONSUMER_GAUGES, None if unknown.

    Args:
        state: what is known of the consumer.
        now: Unix time, up to which the ages count.
    """
    running, up = running_seconds(state, now), int(state.error is None)
    backlog = state.backlog
    if backlog is None:
        return (None,) * 7 + (running, up)
    amount = backlog.amount or (None, None, None)
    return (backlog.version, backlog.versions, lag_seconds(state, now), *amount, backlog.rewrites, running, up)


def lag_seconds(state: ConsumerState, now: float) -> Value:
    """Return the age of the oldest commit that a consumer has not read completely, None if unknown."""
    if state.backlog is None:
        return None
    return 0 if state.backlog.versions == 0 else _age(state.backlog.since, now)


def running_seconds(state: ConsumerState, now: float) -> Value:
    """Return the time since the unfinished batch was planned, 0 if there is none, None if unknown."""
    if state.progress is None:
        return None
    return _age(state.progress.planned, now) if state.progress.is_running else 0


def serve(watcher: Watcher, server: Server) -> WSGIServer:
    """Serve the metrics from threads in the background until the process ends or `shutdown` is called.

    Raises:
        OSError: the port is taken, or the certificate cannot be read.
    """
    registry = CollectorRegistry()
    registry.register(WatcherCollector(watcher))
    ProcessCollector(registry=registry)
    httpd, _ = start_http_server(
        server.port, server.address, registry, certfile=server.certificate, keyfile=server.private_key
    )
    # A client that goes away is no news, and one that sends nothing must not stay. By default, the thread that accepts
    # connections would wait for each client's handshake.
    tuned: Any = httpd
    tuned.handle_error = lambda request, client: None
    tuned.RequestHandlerClass = type("Handler", (tuned.RequestHandlerClass,), {"timeout": CLIENT_TIMEOUT})
    if server.certificate:
        tuned.socket.do_handshake_on_connect = False
    if server.username is not None:
        tuned.set_app(_with_password(tuned.get_app(), server.username, server.password))
    return httpd


def _gauges(gauges: dict[str, str], rows: list[tuple[dict[str, str], tuple[Value, ...]]]) -> Iterator[Metric]:
    for column, (name, documentation) in enumerate(gauges.items()):
        metric = GaugeMetricFamily(name, documentation)
        # By `add_metric` each sample would have labels of its own, which takes twice as long.
        metric.samples += [
            Sample(name, labels, value) for labels, values in rows if (value := values[column]) is not None
        ]
        yield metric


def _age(since: Value, now: float) -> Value:
    return None if since is None else max(now - since, 0)


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
