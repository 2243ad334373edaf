"""Serve the last results over HTTP: a page for people, metrics for Prometheus, and whether the watcher works."""

import gzip
import hmac
import time
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Annotated, Any
from urllib.parse import parse_qsl
from wsgiref.simple_server import WSGIServer

from msgspec import Meta, Struct
from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, Sample
from prometheus_client.exposition import gzip_accepted
from prometheus_client.registry import Collector

from . import page
from .store import requests
from .summary import lag_seconds, lags, retention_seconds, running_seconds
from .watcher import ConsumerState, TableState, Text, Watcher

CLIENT_TIMEOUT = 10  # seconds until a client that sends nothing is disconnected
TEXT = "text/plain; charset=utf-8"
VERSION = version("lag-detector")

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
Value = float | None

# The name of each gauge and its help, in the order of `table_values` and `consumer_values`.
TABLE_GAUGES = {
    "delta_table_version": "Last version of the table",
    "delta_table_commit_timestamp_seconds": "When that version was committed, in Unix time",
}
CONSUMER_GAUGES = {
    "delta_consumer_last_batch_id": "Number of the last finished batch",
    "delta_consumer_last_batch_timestamp_seconds": "When that batch was committed, in Unix time",
    "delta_consumer_batch_running_seconds": "Time since the unfinished batch was planned, 0 if there is none",
    "delta_watch_up": "Whether the last round found the lag",
    "delta_consumer_version": "Last version that the consumer has read completely, -1 if there is none yet",
    "delta_consumer_lag_versions": "Versions that the consumer has not read completely",
    "delta_consumer_lag_seconds": "Age of the oldest commit that the consumer has not read completely, 0 if none",
    "delta_consumer_retention_seconds": "Time until that commit may be cleaned up, negative once it may be",
    "delta_consumer_backlog_files": "Files that the consumer has not read yet",
    "delta_consumer_backlog_bytes": "Bytes of the files that the consumer has not read yet",
    "delta_consumer_backlog_rows": "Rows that the consumer has not read yet",
    "delta_consumer_pending_rewrites": "Unread commits that also remove rows",
}
ERRORS = "delta_watch_errors_total", "Rounds that did not find the lag, by reason"
REQUESTS = "delta_watch_store_requests_total", "Requests to object stores, by operation"
ROUNDS = "delta_watch_rounds_total", "Finished rounds"
SEARCHES = "delta_watch_discoveries_total", "Looks for tables and consumers, by result"
UNMATCHED = "delta_watch_unmatched_checkpoints", "Checkpoints in lakes whose table was not found"
DURATION = "delta_watch_round_duration_seconds", "How long the last round took"
LAST_ROUND = "delta_watch_last_round_timestamp_seconds", "When the last round ended, in Unix time"
RELOADED = "delta_watch_config_last_reload_successful", "Whether the configuration was valid when it was last read"
RELOAD_TIME = "delta_watch_config_last_reload_success_timestamp_seconds", "When it was last valid, in Unix time"
BUILD = "delta_watch_build_info", "Always 1"


class Server(Struct, frozen=True, forbid_unknown_fields=True):
    """How to serve the page and the metrics.

    Args:
        address: IP address or host name to listen on.
        port: port to listen on; 0 for any that is free.
        certificate: path of the certificate for TLS, and `private_key` that of its key; None for plain HTTP.
        username: who may read the page and the metrics, with the password in `password_file`; None for anyone.
    """

    address: Text = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 9464
    certificate: Text | None = None
    private_key: Text | None = None
    username: Text | None = None
    password_file: Text | None = None

    @property
    def password(self) -> str:
        """The password of this moment, empty if there is none."""
        try:
            return Path(self.password_file).read_text(encoding="utf-8").rstrip("\n") if self.password_file else ""
        except (OSError, UnicodeDecodeError):
            return ""


class WatcherCollector(Collector):
    """Collect the last results. What is unknown has no sample.

    Args:
        watcher: whose results to show. It is replaced when the configuration is read again.
        clock: returns the Unix time up to which ages count.
    """

    def __init__(self, watcher: Watcher, clock: Callable[[], float] = time.time) -> None:
        self.watcher, self.clock = watcher, clock
        self.rounds = 0
        self.reloaded, self.last_reload = True, clock()

    def collect(self) -> Iterator[Metric]:
        """Yield each metric with the values of this moment."""
        now, states = self.clock(), self.watcher.states
        yield from _gauges(TABLE_GAUGES, [({"table": table.name}, table_values(table)) for table in states])
        consumers = [
            ({"table": table.name, "consumer": state.consumer.name}, consumer_values(table, state, now))
            for table in states
            for state in table.consumers
        ]
        yield from _gauges(CONSUMER_GAUGES, consumers)
        errors = CounterMetricFamily(*ERRORS, labels=("table", "consumer", "reason"))
        for table_name, counts in list(self.watcher.errors.items()):
            for (consumer_name, reason), count in list(counts.items()):
                errors.add_metric((table_name, consumer_name, reason), count)
        yield errors
        costs = CounterMetricFamily(*REQUESTS, labels=["operation"])
        for operation, count in sorted(requests.items()):
            costs.add_metric([operation], count)
        yield costs
        searches = CounterMetricFamily(*SEARCHES, labels=["result"])
        for result in ("success", "error"):
            searches.add_metric([result], self.watcher.inventory.searches[result])
        yield searches
        yield GaugeMetricFamily(*UNMATCHED, len(self.watcher.inventory.unmatched))
        yield CounterMetricFamily(*ROUNDS, self.rounds)
        if last := self.watcher.last_round:
            yield GaugeMetricFamily(*DURATION, last.seconds)
            yield GaugeMetricFamily(*LAST_ROUND, last.ended)
        yield GaugeMetricFamily(*RELOADED, self.reloaded)
        yield GaugeMetricFamily(*RELOAD_TIME, self.last_reload)
        build = GaugeMetricFamily(*BUILD, labels=("version", "pythonversion"))
        build.add_metric((VERSION, python_version()), 1)
        yield build


def table_values(state: TableState) -> tuple[Value, ...]:
    """Return the value of each of the TABLE_GAUGES, None if unknown."""
    return (state.head.version, state.head.timestamp) if state.head else (None, None)


def consumer_values(table: TableState, state: ConsumerState, now: float) -> tuple[Value, ...]:
    """Return the value of each of the CONSUMER_GAUGES, None if unknown.

    Args:
        table: what is known of the table.
        state: what is known of the consumer.
        now: Unix time, up to which the ages count.
    """
    batch = (state.progress.number, state.progress.committed) if state.progress else (None, None)
    known = (*batch, running_seconds(state, now), int(state.error is None))
    if (backlog := state.backlog) is None:
        return known + (None,) * (len(CONSUMER_GAUGES) - len(known))
    times = lag_seconds(state, now), retention_seconds(state, table.head, now)
    amount = backlog.amount or (None, None, None)
    return (*known, backlog.version, backlog.versions, *times, *amount, backlog.rewrites)


def serve(collector: WatcherCollector, server: Server) -> WSGIServer:
    """Serve the results from threads in the background until the process ends or `shutdown` is called.

    Raises:
        OSError: the port is taken, or the certificate cannot be read.
    """
    registry = CollectorRegistry()
    registry.register(collector)
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
    routes: dict[str, App] = {"/": _page(collector), "/metrics": tuned.get_app()}
    if server.username is not None:
        routes = {path: _with_password(app, server) for path, app in routes.items()}
    # These say nothing about the tables, and what asks for them has no password.
    routes |= {"/-/healthy": _answer("200 OK", "The watcher is healthy.\n"), "/-/ready": _readiness(collector)}
    tuned.set_app(_router(routes))
    return httpd


def _gauges(gauges: dict[str, str], rows: list[tuple[dict[str, str], tuple[Value, ...]]]) -> Iterator[Metric]:
    for column, (name, documentation) in enumerate(gauges.items()):
        metric = GaugeMetricFamily(name, documentation)
        # By `add_metric` each sample would have labels of its own, which takes twice as long.
        metric.samples += [
            Sample(name, labels, value) for labels, values in rows if (value := values[column]) is not None
        ]
        yield metric


def _router(routes: dict[str, App]) -> App:
    """Answer GET and HEAD at these paths."""
    not_found = _answer("404 Not Found", "There is a page at / and there are metrics at /metrics.\n")
    not_allowed = _answer("405 Method Not Allowed", "Use GET or HEAD.\n", ("Allow", "GET, HEAD"))

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        route = routes.get(environ["PATH_INFO"], not_found) if method in ("GET", "HEAD") else not_allowed
        started: list[Any] = []
        answer = route({**environ, "REQUEST_METHOD": "GET"}, lambda status, headers: started.extend((status, headers)))
        content = b"".join(answer)
        start_response(started[0], [*started[1], ("Content-Length", str(len(content)))])
        return [] if method == "HEAD" else [content]

    return app


def _answer(status: str, text: str, *headers: tuple[str, str]) -> App:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response(status, [("Content-Type", TEXT), *headers])
        return [text.encode()]

    return app


def _readiness(collector: WatcherCollector) -> App:
    ready = _answer("200 OK", "The watcher is ready.\n")
    starting = _answer("503 Service Unavailable", "The first round has not ended yet.\n")
    return lambda *request: (ready if collector.watcher.last_round else starting)(*request)


def _page(collector: WatcherCollector) -> App:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        now, last = collector.clock(), collector.watcher.last_round
        found = list(lags(collector.watcher.states, now))
        request = dict(parse_qsl(environ.get("QUERY_STRING", "")))
        content = page.render(found, request, VERSION, last.ended if last else None).encode(errors="replace")
        headers = [("Content-Type", "text/html; charset=utf-8"), *page.HEADERS]
        if gzip_accepted(environ.get("HTTP_ACCEPT_ENCODING", "")):
            content = gzip.compress(content, 6)
            headers.append(("Content-Encoding", "gzip"))
        start_response("200 OK", headers)
        return [content]

    return app


def _with_password(app: App, server: Server) -> App:
    """Answer only requests with the name and the password of the moment."""
    headers = ("WWW-Authenticate", 'Basic realm="delta-watch", charset="UTF-8"')
    denied = _answer("401 Unauthorized", "The name or the password is wrong.\n", headers)

    def checked(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        scheme, _, login = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        password = server.password
        try:
            given = b64decode(login)
        except ValueError:
            given = b""
        is_right = hmac.compare_digest(given, f"{server.username}:{password}".encode())
        allowed = scheme.lower() == "basic" and password and is_right
        return (app if allowed else denied)(environ, start_response)

    return checked
