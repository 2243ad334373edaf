"""The last results over HTTP: metrics for Prometheus, and whether the watcher is healthy and ready."""

import gzip
import re
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any

from delta_watch.exporter import Server, WatcherCollector, serve
from delta_watch.watcher import Consumer, Watcher
from tests.helpers.handmade_tables import ID, PLANNED, Files, add, before_the_head, metadata, offset, remove

import pytest
import trustme
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics_parser

LABELS = (("consumer", "fraud"), ("table", "orders"))
LAST_BATCH = "consumer_last_batch_timestamp_seconds"
RELOADS = ("config_last_reload_successful", "config_last_reload_success_timestamp_seconds")
BEFORE_ROUNDS = {
    f"delta_watch_{name}"
    for name in ("build_info", "rounds_total", "discoveries_total", "unmatched_checkpoints", *RELOADS)
}
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@contextmanager
def served(watcher: Watcher, server: Server) -> Iterator[int]:
    """Serve the metrics on a free port, and yield it."""
    httpd = serve(WatcherCollector(watcher), server)
    try:
        yield httpd.server_port
    finally:
        httpd.shutdown()
        httpd.server_close()


def samples(families: Any) -> Samples:
    """Return the values of metrics by name and labels."""
    found: Samples = {}
    for family in families:
        assert family.documentation
        assert family.type in ("gauge", "counter")
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found
            found[key] = sample.value
    return found


def collected(watcher: Watcher, now: float | None = None) -> Samples:
    return samples((WatcherCollector(watcher) if now is None else WatcherCollector(watcher, lambda: now)).collect())


def of_consumer(values: Samples) -> dict[str, float]:
    return {name: value for (name, labels), value in values.items() if labels == LABELS}


def get(
    port: int, context: ssl.SSLContext | None = None, path: str = "/metrics", method: str = "GET", **headers: str
) -> tuple[HTTPResponse, bytes]:
    """Scrape, or ask for another path, with these headers: `_` stands for `-`."""
    client = HTTPSConnection("127.0.0.1", port, timeout=5, context=context) if context else None
    with closing(client or HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        connection.request(method, path, headers={name.replace("_", "-"): text for name, text in headers.items()})
        response = connection.getresponse()
        return response, response.read()


@pytest.fixture
def watcher(files: Files) -> Watcher:
    """A watcher that has looked once at the hand-made table, whose consumer is 3 versions behind."""
    watcher = files.watcher()
    watcher.run_round()
    return watcher


def test_all_metrics_of_a_consumer_that_is_behind(files: Files, watcher: Watcher) -> None:
    files.commit(7, metadata(ID, **{"delta.logRetentionDuration": "2 days"}), remove("6.parquet"), add("7.parquet"))
    files.plan(1, offset(8))
    watcher.run_round()
    committed = [files.commit_path(version).stat().st_mtime for version in range(8)]
    now = committed[7] + 60
    expected = {
        "delta_consumer_version": 3,
        "delta_consumer_lag_versions": 4,
        "delta_consumer_lag_seconds": pytest.approx(now - committed[4]),
        "delta_consumer_backlog_files": 3,
        "delta_consumer_backlog_bytes": 300,
        "delta_consumer_backlog_rows": 3,
        "delta_consumer_pending_rewrites": 1,
        "delta_consumer_batch_running_seconds": pytest.approx(now - PLANNED),
        "delta_consumer_retention_seconds": pytest.approx(committed[4] + 2 * 86400 - now),
        "delta_consumer_last_batch_id": 0,
        "delta_consumer_last_batch_timestamp_seconds": (files.checkpoint / "commits" / "0").stat().st_mtime,
        "delta_watch_up": 1,
    }
    values = collected(watcher, now)
    assert of_consumer(values) == expected
    table = (("table", "orders"),)
    assert values["delta_table_version", table] == 7
    assert values["delta_table_commit_timestamp_seconds", table] == pytest.approx(committed[7])
    assert watcher.last_round
    assert values["delta_watch_round_duration_seconds", ()] == watcher.last_round.seconds
    assert values["delta_watch_last_round_timestamp_seconds", ()] == watcher.last_round.ended
    files.commit(8, add("8.parquet", rows=None))
    watcher.run_round()
    assert expected.keys() - of_consumer(collected(watcher)).keys() == {"delta_consumer_backlog_rows"}


def test_zero_is_there_and_no_clock_makes_an_age_negative(files: Files, watcher: Watcher) -> None:
    files.read(1, offset(7))
    watcher.run_round()
    values = of_consumer(collected(watcher))
    known = {"version": 6, "last_batch_id": 1, "last_batch_timestamp_seconds": time.time()}
    assert {name: values.pop(f"delta_consumer_{name}") for name in known} == pytest.approx(known, abs=60)
    assert values.pop("delta_watch_up") == 1
    assert list(values.values()) == [0] * 7  # and no retention: there is nothing to lose
    files.append(7, 7)
    files.plan(2, offset(8))
    watcher.run_round()
    values = of_consumer(collected(watcher, now=0))
    assert (values["delta_consumer_lag_seconds"], values["delta_consumer_batch_running_seconds"]) == (0, 0)


@pytest.mark.parametrize(
    ("reason", "names"),
    [
        ("corrupt", ()),
        ("log_cleaned", ("consumer_version", "consumer_lag_versions", "consumer_last_batch_id", LAST_BATCH)),
    ],
)
def test_unknown_is_absent(files: Files, watcher: Watcher, reason: str, names: tuple[str, ...]) -> None:
    if reason == "corrupt":
        (files.checkpoint / "offsets" / "0").write_text("garbage")
    else:
        files.commit_path(4).unlink()
    for count in (1, 2):
        watcher.run_round()
        found = collected(watcher)
        always = ("watch_up", "consumer_batch_running_seconds")
        assert of_consumer(found).keys() == {f"delta_{name}" for name in (*names, *always)}
        assert {of_consumer(found)[f"delta_{name}"] for name in always} == {0}
        assert found["delta_watch_errors_total", (*LABELS[:1], ("reason", reason), *LABELS[1:])] == count


def test_table_that_is_no_table(tmp_path: Path) -> None:
    watcher = Watcher({"none": str(tmp_path / "none")}, [])
    requests = {"delta_watch_store_requests_total"}  # of other tests
    assert {name for name, _ in collected(watcher)} - requests == BEFORE_ROUNDS
    watcher.run_round()
    values = collected(watcher)
    assert values["delta_watch_errors_total", (("consumer", ""), ("reason", "not_a_table"), ("table", "none"))] == 1
    assert not any(name == "delta_table_version" for name, _ in values)


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text;version=1.0.0"])
def test_over_http_names_of_any_kind_in_both_formats(files: Files, accept: str) -> None:
    name = 'a "b"\\n\nc\\ é,}{='
    watcher = Watcher({name: str(files.table)}, [Consumer(name, name, str(files.checkpoint))])
    watcher.run_round()
    with served(watcher, Server(port=0)) as port:
        plain, text = get(port, Accept=accept)
        packed, gzipped = get(port, Accept=accept, Accept_Encoding="gzip")
    assert plain.headers["Content-Type"].startswith(accept.partition(";")[0] or "text/plain; version=0.0.4")
    assert (plain.headers["Content-Encoding"], packed.headers["Content-Encoding"]) == (None, "gzip")
    parse = openmetrics_parser.text_string_to_metric_families if accept else parser.text_string_to_metric_families
    for body in (text, gzip.decompress(gzipped)):
        values = samples(parse(body.decode()))
        assert values["delta_consumer_lag_versions", (("consumer", name), ("table", name))] == 3
        assert values["process_resident_memory_bytes", ()] > 1e6


@pytest.mark.parametrize(
    ("login", "status"),
    [
        ("Basic " + b64encode(b"prometheus:s\xc3\xa9cret").decode(), 200),
        ("basic " + b64encode(b"prometheus:s\xc3\xa9cret").decode(), 200),
        ("Basic " + b64encode(b"prometheus:wrong").decode(), 401),
        ("Basic " + b64encode(b"other:s\xc3\xa9cret").decode(), 401),
        ("Basic not base64 \xe9", 401),
        ("Bearer " + b64encode(b"prometheus:s\xc3\xa9cret").decode(), 401),
        ("", 401),
    ],
)
def test_basic_auth(watcher: Watcher, tmp_path: Path, login: str, status: int) -> None:
    (tmp_path / "password").write_text("sécret\n", encoding="utf-8")
    server = Server(port=0, username="prometheus", password_file=str(tmp_path / "password"))
    with served(watcher, server) as port:
        answers = [get(port, path=path, Authorization=login) for path in ("/metrics", "/")]
        (tmp_path / "password").write_text("")
        without = b64encode(b"prometheus:").decode()
        assert get(port, Authorization=f"Basic {without}")[0].status == 401
        assert get(port, path="/-/ready")[0].status == 200  # a probe has no password
    assert [response.status for response, _ in answers] == [status] * 2
    assert [b"fraud" in body for _, body in answers] == [status == 200] * 2


@pytest.mark.parametrize(
    ("path", "status", "kind"),
    [
        ("/", 200, "text/html"),
        ("/?q=fraud&sort=-lag_seconds&from=7", 200, "text/html"),
        ("/metrics", 200, "text/plain"),
        ("/-/healthy", 200, "text/plain"),
        ("/-/ready", 503, "text/plain"),
        ("/metrics/", 404, "text/plain"),
        ("/favicon.ico", 404, "text/plain"),
    ],
)
def test_paths(files: Files, path: str, status: int, kind: str) -> None:
    watcher = files.watcher()
    with served(watcher, Server(port=0)) as port:
        response, body = get(port, path=path)
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            client.sendall(f"HEAD {path} HTTP/1.0\r\n\r\n".encode())
            head = b"".join(iter(lambda: client.recv(65536), b""))
        watcher.run_round()
        assert get(port, path=path)[0].status == (200 if status == 503 else status)
        assert get(port, path=path, method="POST")[0].status == 405
    assert (response.status, response.headers["Content-Type"].split(";")[0]) == (status, kind)
    assert int(response.headers["Content-Length"]) == len(body) > 0
    assert re.match(rf"HTTP/1.0 {status} (?s:.*)\r\nContent-Length: \d+\r\n\r\n$", head.decode())


@pytest.fixture
def tls(tmp_path: Path) -> tuple[Server, ssl.SSLContext]:
    """A server with a certificate, and what trusts it."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    paths = [str(tmp_path / name) for name in ("tls.crt", "tls.key")]
    certificate.cert_chain_pems[0].write_to_path(paths[0])
    certificate.private_key_pem.write_to_path(paths[1])
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return Server(port=0, certificate=paths[0], private_key=paths[1]), context


def test_tls(watcher: Watcher, tls: tuple[Server, ssl.SSLContext]) -> None:
    with served(watcher, tls[0]) as port:
        assert b"delta_watch_up" in get(port, tls[1])[1]
        with pytest.raises(OSError, match=r"disconnected|reset|empty|without response"):
            get(port)


@pytest.mark.parametrize("with_tls", [False, True])
def test_client_that_sends_nothing_holds_up_no_scrape_and_is_no_news(
    watcher: Watcher,
    tls: tuple[Server, ssl.SSLContext],
    with_tls: bool,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("delta_watch.exporter.CLIENT_TIMEOUT", 0.2)
    server, context = tls if with_tls else (Server(port=0), None)
    with served(watcher, server) as port, socket.create_connection(("127.0.0.1", port), timeout=10) as silent:
        assert get(port, context)[0].status == 200
        assert silent.recv(1) == b""  # disconnected
    assert capfd.readouterr().err == ""


def test_scrape_while_a_round_runs(watcher: Watcher, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Samples] = []
    before_the_head(monkeypatch, watcher, lambda: seen.append(collected(watcher)))
    watcher.run_round()
    assert seen[0]["delta_consumer_lag_versions", LABELS] == 3
