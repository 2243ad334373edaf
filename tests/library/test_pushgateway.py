"""Pushing: what arrives at a real Pushgateway, and how a push fails."""

import os
import re
import socket
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event
from urllib.request import Request, urlopen

from demo.stack import ROOT, pushgateway
from lag_detector.errors import LagDetectorError, PushgatewayError
from lag_detector.pushgateway import ATTEMPT_TIMEOUT, RETRY_DELAYS, TIME_LIMIT, Pushgateway
from tests.helpers import disk_truth as truth
from tests.helpers.http_servers import serve, serve_codes
from tests.helpers.workspace import wait_until_equal

import pytest
import trustme

METRIC = "visits_test"
OTHER_HOST = "gateway.example"


@pytest.fixture(autouse=True)
def short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry at once. A gateway that answers still has its five seconds, because this machine may be busy."""
    monkeypatch.setattr("lag_detector.pushgateway.RETRY_DELAYS", (0.1, 0.2))


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A Pushgateway of its own for one test."""
    with pushgateway(tmp_path) as running:
        yield running


def push(url: str, version: int) -> None:
    Pushgateway(url).push(METRIC, version)


def test_delete_metric_twice_leaves_no_gauge(address: str) -> None:
    push(address, 3)
    for _ in range(2):
        Pushgateway(address).delete_metric(METRIC)
        wait_until_equal(lambda: truth.gauges(address), {})
    Pushgateway(address).delete_group(METRIC)


@pytest.mark.parametrize("job", [f"{METRIC}_history", f"{METRIC}s", f"{METRIC}_History"])
def test_delete_metric_keeps_the_groups_of_others(job: str, address: str) -> None:
    urlopen(Request(f"{address}/metrics/job/{job}", b"rows 3\n", method="PUT"), timeout=10).close()
    push(address, 3)
    Pushgateway(address).delete_metric(METRIC)
    wait_until_equal(lambda: truth.gauges(address, versions=["rows", METRIC]), {job: 3})


@pytest.mark.parametrize(
    ("pushed", "path"),
    [
        pytest.param(METRIC, "job/manual", id="other-job"),
        pytest.param(METRIC, f"job/{METRIC}/instance/a%20b", id="additional-label"),
        pytest.param(f"{METRIC}_timestamp_seconds", "job/manual", id="timestamp"),
    ],
)
def test_delete_metric_that_another_program_pushes_names_the_command(pushed: str, path: str, address: str) -> None:
    """Pushed by hand, without a type: then the gateway rejects the gauge, which has one."""
    gateway = Pushgateway(address)
    gateway.push(METRIC, 3, timestamp=time.time())
    by_hand = Request(f"{address}/metrics/{path}", f"{pushed} 3\n".encode(), method="POST")
    gateway.delete_metric(METRIC)
    wait_until_equal(lambda: truth.gauges(address), {})
    urlopen(by_hand, timeout=10).close()
    with pytest.raises(LagDetectorError, match=f"curl -X DELETE {address}/metrics/{path}$"):
        gateway.delete_metric(METRIC)
    with pytest.raises(PushgatewayError, match="answered 400 .*inconsistent.*is not a (UNTYPED|GAUGE)") as error:
        gateway.push(METRIC, 6, timestamp=time.time())
    assert error.value.rejected
    urlopen(Request(f"{address}/metrics/{path}", method="DELETE"), timeout=10).close()
    wait_until_equal(lambda: pushed in [series["__name__"] for series, _ in truth.samples(address)], False)
    gateway.delete_metric(METRIC)
    gateway.push(METRIC, 6)
    assert truth.gauges(address) == {METRIC: 6}


def test_push_when_gateway_recovers_is_delivered() -> None:
    with serve_codes(500, 503, 200) as (address, requests):
        push(f"http://{address}", 3)
        assert [request.value(METRIC) for request in requests] == [3] * 3


def test_push_without_retry_makes_one_attempt() -> None:
    with serve_codes(503) as (address, requests):
        with pytest.raises(PushgatewayError, match="answered 503"):
            Pushgateway(f"http://{address}").push(METRIC, 3, retry=False)
        assert len(requests) == 1


def test_push_to_slow_gateway_is_delivered_once() -> None:
    with serve_codes(202, after=1) as (address, requests):
        push(f"http://{address}", 3)
    assert len(requests) == 1


@pytest.mark.parametrize(
    ("codes", "body", "answer"),
    [
        ((400,), "pushed metrics are invalid\nsecond line\n", "400 Bad Request: pushed metrics are invalid"),
        ((401,), "", "401 Unauthorized"),
        ((302,), "", "302 Found"),
        ((500, 500, 503), "starting", "503 Service Unavailable: starting"),
    ],
)
def test_push_that_fails_names_gateway_and_answer_without_password(
    codes: tuple[int, ...], body: str, answer: str
) -> None:
    with serve_codes(*codes, body=body) as (address, requests), pytest.raises(PushgatewayError) as raised:
        push(f"http://me:s%20cret@{address}", 3)
    assert str(raised.value) == (
        f"the Pushgateway at http://{address} answered {answer}: "
        f"{METRIC} 3 was not delivered, and what the table holds is unaffected"
    )
    assert raised.value.rejected == (codes[0] < 500)
    assert [request.login for request in requests] == ["Basic bWU6cyBjcmV0"] * len(codes)


@pytest.mark.parametrize(
    ("ask", "code"),
    [("push", 302), ("push", 307), ("group_names", 301), ("group_names", 308), ("delete_metric", 303)],
)
def test_request_that_is_redirected_names_the_target_and_sends_it_nothing(ask: str, code: int) -> None:
    login = "other:secret@" if ask == "push" else ""
    with (
        serve_codes(200) as (elsewhere, requests),
        serve_codes(code, redirect=f"http://{login}{elsewhere}") as (address, _),
    ):
        gateway = Pushgateway(f"http://me:secret@{address}")
        with pytest.raises(PushgatewayError) as raised:
            getattr(gateway, ask)(METRIC, *([3] if ask == "push" else []))
    assert requests == []
    assert raised.value.rejected
    assert f"http://{address} redirects to http://{elsewhere}/" in str(raised.value)
    assert "secret" not in str(raised.value)


def has_ipv6_loopback() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as listener:
            listener.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "127.0.0.1",
        pytest.param("[::1]", marks=pytest.mark.skipif(not has_ipv6_loopback(), reason="no IPv6 loopback")),
    ],
)
@pytest.mark.parametrize("no_proxy", ["", "elsewhere"])
def test_push_to_loopback_bypasses_proxy_and_keeps_environment(
    host: str, no_proxy: str, closed_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pushgateway(tmp_path, host=host) as listening:
        address = f"http://{host}:{listening.rpartition(':')[2]}"
        with monkeypatch.context() as patch:
            patch.delenv("NO_PROXY", raising=False)
            patch.setenv("no_proxy", no_proxy)
            patch.setenv("http_proxy", f"http://127.0.0.1:{closed_port}")
            before = dict(os.environ)
            push(address, 3)
            assert Pushgateway(address).group_names(METRIC) == [METRIC]
            assert dict(os.environ) == before
        assert truth.gauges(address) == {METRIC: 3}


def test_push_to_another_host_goes_through_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_codes(202) as (proxy, requests):
        monkeypatch.setenv("http_proxy", f"http://{proxy}")
        monkeypatch.setenv("no_proxy", "elsewhere.example")
        Pushgateway("http://localhost:9091")  # which needs no proxy, and must not affect the other one
        push(f"http://{OTHER_HOST}:9091", 3)
        assert [request.path for request in requests] == [f"http://{OTHER_HOST}:9091/metrics/job/{METRIC}"]


def test_push_to_host_in_no_proxy_bypasses_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo

    def resolve_to_loopback(host: str, *arguments: object, **options: object) -> object:
        return resolve("127.0.0.1" if host == OTHER_HOST else host, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", resolve_to_loopback)
    with serve_codes(502) as (proxy, by_proxy), serve_codes(202) as (address, direct):
        monkeypatch.setenv("http_proxy", f"http://{proxy}")
        monkeypatch.setenv("no_proxy", f"elsewhere.example,{OTHER_HOST}")
        push(f"http://{address.replace('127.0.0.1', OTHER_HOST)}", 3)
        assert (len(by_proxy), len(direct)) == (0, 1)


def test_push_to_closed_port_or_unknown_host_is_not_rejected(closed_port: int) -> None:
    with pytest.raises(PushgatewayError, match=r"cannot be reached \(connection refused\): ") as raised:
        push(f"http://127.0.0.1:{closed_port}", 3)
    assert not raised.value.rejected
    with pytest.raises(PushgatewayError, match=r"http://no-such-host\.invalid:9091 .*(name|address)"):
        push("http://no-such-host.invalid:9091", 3)


def test_push_when_answer_never_ends_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte of the answer arrives within the socket's timeout."""
    monkeypatch.setattr("lag_detector.pushgateway.ATTEMPT_TIMEOUT", 0.5)
    given_up = Event()

    def answer(request: BaseHTTPRequestHandler) -> None:
        try:
            while not given_up.wait(0.1):
                request.wfile.write(b"H")
        except OSError:
            pass  # the client has closed the connection

    with serve(answer) as address:
        begin = time.monotonic()
        try:
            with pytest.raises(PushgatewayError, match="timed out"):
                push(f"http://{address}", 3)
        finally:
            given_up.set()
        assert time.monotonic() - begin < 10


def test_push_to_silent_gateway_ends_within_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that never answers costs 30 seconds, in which several attempts are made. Here a fifth of all times."""
    scale = 0.2
    monkeypatch.setattr("lag_detector.pushgateway.RETRY_DELAYS", tuple(scale * delay for delay in RETRY_DELAYS))
    monkeypatch.setattr("lag_detector.pushgateway.ATTEMPT_TIMEOUT", scale * ATTEMPT_TIMEOUT)
    monkeypatch.setattr("lag_detector.pushgateway.TIME_LIMIT", scale * TIME_LIMIT)
    with socket.socket() as black_hole:
        black_hole.bind(("127.0.0.1", 0))
        black_hole.settimeout(0)
        black_hole.listen()
        begin = time.monotonic()
        with pytest.raises(PushgatewayError, match=r"cannot be reached \(timed out\)") as raised:
            push(f"http://127.0.0.1:{black_hole.getsockname()[1]}", 3)
        assert time.monotonic() - begin < scale * 30 + 1.5  # without the limit it would be a fifth of 38 or more
        for _ in range(4):
            black_hole.accept()
    assert not raised.value.rejected


@pytest.mark.parametrize(
    "url", ["localhost:9091", "ftp://host", "http://host:port", "http://", "http://host:0", "http://[::1:9091"]
)
def test_pushgateway_with_invalid_url_raises(url: str) -> None:
    with pytest.raises(LagDetectorError, match="^the URL is not of the form"):
        Pushgateway(url)


NOT_JSON, OTHER_JSON = "expecting value: line 1 column 1 (char 0)", "its json is not that of a pushgateway"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param("<html>Prometheus</html>", NOT_JSON, id="html"),
        pytest.param("", NOT_JSON, id="empty"),
        pytest.param('{"status": "success"}', OTHER_JSON, id="no-data"),
        pytest.param('{"data": [{"labels": 1}]}', OTHER_JSON, id="no-labels"),
        pytest.param("[]", OTHER_JSON, id="list"),
    ],
)
def test_group_names_when_answer_is_of_another_program_raises(content: str, reason: str) -> None:
    with serve_codes(200, body=content) as (address, _), pytest.raises(PushgatewayError) as raised:
        Pushgateway(f"http://{address}").group_names(METRIC)
    assert str(raised.value) == (
        f"the Pushgateway at http://{address} gave no valid answer ({reason}): "
        f"the groups of {METRIC} could not be listed, and none was deleted"
    )
    assert not raised.value.rejected


@pytest.mark.parametrize(
    ("latest", "pushed"),
    [
        pytest.param([(3, 1.5), (3, 1.5)], [3], id="unchanged"),
        pytest.param([(3, 1.5), (4, 2.5), (6, 3.5), (6, 3.5)], [3, 4, 6], id="changed-twice"),
        pytest.param([(version, None) for version in range(11)], list(range(10)), id="always-changed"),
    ],
)
def test_push_latest_when_version_changes_meanwhile_pushes_again(
    latest: list[tuple[int, float | None]], pushed: list[float]
) -> None:
    remaining = iter(latest)
    with serve_codes(202) as (address, requests):
        version = Pushgateway(f"http://{address}").push_latest(METRIC, lambda: next(remaining))
    assert [request.value(METRIC) for request in requests] == pushed
    assert version == pushed[-1]
    assert list(remaining) == []


@pytest.mark.parametrize(("folder", "kept"), [("first", {METRIC: 3}), ("second", {})])
def test_push_again_after_gateway_restart_replaces_the_version(
    folder: str, kept: dict[str, float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Started again with its gauges, or without them."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    with pushgateway(tmp_path / "first") as address:
        push(address, 3)
    with pushgateway(tmp_path / folder, port=int(address.rpartition(":")[2])):
        assert truth.gauges(address) == kept
        push(address + "/", 6)
        assert truth.gauges(address) == {METRIC: 6}
    assert capsys.readouterr() == ("", "")


def test_gateway_and_prometheus_are_started_in_one_place() -> None:
    """There each gets a folder of its own. Debian's would otherwise write to those of the machine's services."""
    starts = [file for file in ROOT.glob("[a-z]*/**/*.py") if re.search(r'\[program\("prometheus', file.read_text())]
    assert starts == [ROOT / "demo" / "stack.py"]


def test_push_with_wrong_password_is_rejected(tmp_path: Path) -> None:
    """The hash is bcrypt's of the password `s cret`."""
    config = tmp_path / "web.yml"
    config.write_text("basic_auth_users: {me: $2b$04$ZEDlSfTElp6VfAyp6dZ5Me.FefFUrTiINVGCRYttrs7tIpcNXoHTy}\n")
    with pushgateway(tmp_path, f"--web.config.file={config}") as address:
        host = address.removeprefix("http://")
        push(f"http://me:s%20cret@{host}", 3)
        for login in ("me:wr%20ng@", "you:s%20cret@", ""):
            with pytest.raises(PushgatewayError, match=f"{address} answered 401") as raised:
                push(f"http://{login}{host}", 6)
            assert raised.value.rejected
            assert not re.search("cret|ng@", str(raised.value))


def test_push_over_https_verifies_the_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    pem, config = tmp_path / "server.pem", tmp_path / "web.yml"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(pem)
    config.write_text(f"tls_server_config: {{cert_file: {pem}, key_file: {pem}}}\n")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with pushgateway(tmp_path, f"--web.config.file={config}", scheme="https") as address:
        push(address, 3)
        monkeypatch.delenv("SSL_CERT_FILE")
        with pytest.raises(PushgatewayError, match="certificate verify failed"):
            push(address, 6)
