"""Prometheus gets the last results over HTTP."""

import gzip
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from pathlib import Path

from delta_watch.exporter import Server, exposition, serve
from delta_watch.watcher import Consumer, Watcher
from tests.helpers.handmade_tables import PLANNED, Files, add, offset, remove

import pytest
import trustme
from prometheus_client.parser import text_string_to_metric_families

LABELS = (("consumer", "fraud"), ("table", "orders"))
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@contextmanager
def served(watcher: Watcher, server: Server) -> Iterator[int]:
    """Serve the metrics on a free port, and yield it."""
    httpd = serve(watcher, server)
    try:
        yield httpd.server_port
    finally:
        httpd.shutdown()
        httpd.server_close()


def parse(text: str) -> Samples:
    samples: Samples = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        assert family.type in ("gauge", "counter")
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in samples
            samples[key] = sample.value
    return samples


def metrics(watcher: Watcher, now: float | None = None) -> Samples:
    return parse(exposition(watcher, time.time() if now is None else now))


def of_consumer(samples: Samples) -> dict[str, float]:
    return {name: value for (name, labels), value in samples.items() if labels == LABELS}


def get(port: int, **headers: str) -> tuple[HTTPResponse, bytes]:
    """Scrape, with these headers: `_` stands for `-`."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=10)) as client:
        client.request("GET", "/metrics", headers={name.replace("_", "-"): text for name, text in headers.items()})
        response = client.getresponse()
        return response, response.read()


def test_all_metrics_of_a_consumer_that_is_behind(files: Files) -> None:
    files.commit(7, remove("6.parquet"), add("7.parquet"))
    files.plan(1, offset(8))
    watcher = files.watcher()
    watcher.round()
    committed = [files.commit_path(version).stat().st_mtime for version in range(8)]
    now = committed[7] + 60
    samples = metrics(watcher, now)
    assert of_consumer(samples) == {
        "delta_consumer_version": 3,
        "delta_consumer_lag_versions": 4,
        "delta_consumer_lag_seconds": pytest.approx(now - committed[4]),
        "delta_consumer_backlog_files": 3,
        "delta_consumer_backlog_bytes": 300,
        "delta_consumer_backlog_rows": 3,
        "delta_consumer_pending_rewrites": 1,
        "delta_consumer_batch_running_seconds": pytest.approx(now - PLANNED),
        "delta_watch_up": 1,
    }
    table = (("table", "orders"),)
    assert samples["delta_table_version", table] == 7
    assert samples["delta_table_commit_timestamp_seconds", table] == pytest.approx(committed[7])
    assert watcher.last_round
    assert samples["delta_watch_round_duration_seconds", ()] == pytest.approx(watcher.last_round.seconds)
    assert samples["delta_watch_last_round_timestamp_seconds", ()] == pytest.approx(watcher.last_round.ended)


def test_zero_is_there_and_no_clock_makes_an_age_negative(files: Files) -> None:
    files.read(1, offset(7))
    watcher = files.watcher()
    watcher.round()
    values = of_consumer(metrics(watcher))
    assert values.pop("delta_consumer_version") == 6
    assert values.pop("delta_watch_up") == 1
    assert set(values.values()) == {0}
    assert len(values) == 7
    files.append(7, 7)
    files.plan(2, offset(8))
    watcher.round()
    values = of_consumer(metrics(watcher, now=0))
    assert (values["delta_consumer_lag_seconds"], values["delta_consumer_batch_running_seconds"]) == (0, 0)


def test_unknown_is_absent(files: Files) -> None:
    watcher = files.watcher(report=lambda _: None)
    (files.checkpoint / "offsets" / "0").write_text("garbage")
    watcher.round()
    samples = metrics(watcher)
    assert of_consumer(samples) == {"delta_watch_up": 0, "delta_consumer_batch_running_seconds": 0}
    assert samples["delta_watch_errors_total", (*LABELS[:1], ("reason", "corrupt"), *LABELS[1:])] == 1
    watcher.round()
    assert metrics(watcher)["delta_watch_errors_total", (*LABELS[:1], ("reason", "corrupt"), *LABELS[1:])] == 2


def test_rows_alone_are_absent_without_statistics(files: Files) -> None:
    files.commit(7, add("7.parquet", rows=None))
    watcher = files.watcher()
    watcher.round()
    values = of_consumer(metrics(watcher))
    assert "delta_consumer_backlog_rows" not in values
    assert values["delta_consumer_backlog_bytes"] == 400


def test_versions_stay_if_the_log_was_cleaned_up(files: Files) -> None:
    files.commit_path(4).unlink()
    watcher = files.watcher(report=lambda _: None)
    watcher.round()
    assert of_consumer(metrics(watcher)) == {
        "delta_consumer_version": 3,
        "delta_consumer_lag_versions": 3,
        "delta_consumer_batch_running_seconds": 0,
        "delta_watch_up": 0,
    }


def test_table_that_is_no_table(files: Files, tmp_path: Path) -> None:
    watcher = Watcher({"none": str(tmp_path / "none")}, [], report=lambda _: None)
    watcher.round()
    samples = metrics(watcher)
    errors = {labels: value for (name, labels), value in samples.items() if name == "delta_watch_errors_total"}
    assert errors == {(("consumer", ""), ("reason", "not_a_table"), ("table", "none")): 1}
    assert not any(name == "delta_table_version" for name, _ in samples)


def test_names_of_any_kind(files: Files) -> None:
    name = 'a "b"\\n\nc\\ é,}{='
    watcher = Watcher({name: str(files.table)}, [Consumer(name, name, str(files.checkpoint))])
    watcher.round()
    assert metrics(watcher)["delta_consumer_lag_versions", (("consumer", name), ("table", name))] == 3


def test_before_the_first_round_there_are_no_values(files: Files) -> None:
    assert metrics(files.watcher()) == {}


def test_over_http(files: Files) -> None:
    watcher = files.watcher()
    watcher.round()
    with served(watcher, Server(port=0)) as port:
        plain, body = get(port)
        assert plain.status == 200
        assert plain.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert parse(body.decode())["delta_consumer_lag_versions", LABELS] == 3
        packed, body = get(port, Accept_Encoding="gzip")
        assert packed.headers["Content-Encoding"] == "gzip"
        assert parse(gzip.decompress(body).decode())["delta_consumer_lag_versions", LABELS] == 3


def test_only_on_loopback_by_default() -> None:
    assert Server().address == "127.0.0.1"


def test_other_methods_are_refused(files: Files) -> None:
    with served(files.watcher(), Server(port=0)) as port, closing(HTTPConnection("127.0.0.1", port)) as client:
        client.request("POST", "/metrics")
        assert client.getresponse().status == 405


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
def test_basic_auth(files: Files, login: str, status: int) -> None:
    watcher = files.watcher()
    watcher.round()
    with served(watcher, Server(port=0, username="prometheus", password="sécret")) as port:
        response, body = get(port, Authorization=login)
        assert response.status == status
        assert (b"delta_" in body) == (status == 200)


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


def test_tls(files: Files, tls: tuple[Server, ssl.SSLContext]) -> None:
    server, context = tls
    watcher = files.watcher()
    watcher.round()
    with served(watcher, server) as port:
        with closing(HTTPSConnection("127.0.0.1", port, context=context, timeout=10)) as client:
            client.request("GET", "/metrics")
            assert parse(client.getresponse().read().decode())["delta_watch_up", LABELS] == 1
        with pytest.raises(OSError, match=r"disconnected|reset|empty|without response"):
            get(port)


@pytest.mark.parametrize("with_tls", [False, True])
def test_client_that_sends_nothing_holds_up_no_scrape_and_is_no_news(
    files: Files,
    tls: tuple[Server, ssl.SSLContext],
    with_tls: bool,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("delta_watch.exporter.CLIENT_TIMEOUT", 0.2)
    watcher = files.watcher()
    watcher.round()
    server, context = tls if with_tls else (Server(port=0), None)
    with served(watcher, server) as port, socket.create_connection(("127.0.0.1", port), timeout=10) as silent:
        client = HTTPSConnection if with_tls else HTTPConnection
        options = {"context": context} if with_tls else {}
        with closing(client("127.0.0.1", port, timeout=5, **options)) as scrape:  # type: ignore[arg-type]
            scrape.request("GET", "/metrics")
            assert scrape.getresponse().status == 200
        assert silent.recv(1) == b""  # disconnected
    assert capfd.readouterr().err == ""


def test_scrape_while_a_round_runs(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = files.watcher()
    watcher.round()
    seen: list[Samples] = []
    table = watcher.tables["orders"]
    find_head = table.find_head

    def meanwhile() -> bool:
        seen.append(metrics(watcher))
        return find_head()

    monkeypatch.setattr(table, "find_head", meanwhile)
    watcher.round()
    assert seen[0]["delta_consumer_lag_versions", LABELS] == 3
