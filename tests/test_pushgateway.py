"""Publishing: what arrives at a real Pushgateway, and how a push ends that does not."""

import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event

from demo.programs import program
from demo.stack import free_port, pushgateway, running
from lag_detector import gauges
from lag_detector.errors import LagDetectorError
from tests import truth
from tests.servers import serving

import pytest
import trustme

GAUGE = "visits_test"


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauges, "WAITS", (0.1, 0.2))
    monkeypatch.setattr(gauges, "TRY_TIMEOUT", 0.5)


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """Publish as a script does that finds this address in its environment."""

    def to(address: str, version: int) -> None:
        monkeypatch.setenv("PUSHGATEWAY_URL", address)
        gauges.publish(gauges.pushgateway(), GAUGE, version)

    return to


Publish = Callable[[str, int], None]


@contextmanager
def answering(*codes: int) -> Iterator[tuple[str, list[str]]]:
    """Serve these answers, one for each request; gives host and port, and the requests' Authorization headers."""
    seen: list[str] = []
    answers = iter(codes)

    def answer(request: BaseHTTPRequestHandler) -> None:
        seen.append(request.headers.get("Authorization", ""))
        request.send_response(next(answers))
        request.end_headers()

    with serving(answer) as address:
        yield address, seen


def test_publish_replaces_and_forget_removes(
    tmp_path: Path, publish: Publish, capsys: pytest.CaptureFixture[str]
) -> None:
    with pushgateway(tmp_path, free_port()) as address:
        publish(address + "/", 3)
        publish(address, 6)
        assert truth.gauges(address) == {GAUGE: 6}
        for _ in range(2):
            gauges.forget(gauges.pushgateway(), GAUGE)
            assert truth.gauges(address) == {}
    assert capsys.readouterr().out == f"{GAUGE} 3 pushed to {address}\n{GAUGE} 6 pushed to {address}\n"


def test_a_gateway_that_recovers_gets_the_push(publish: Publish) -> None:
    with answering(500, 503, 200) as (address, seen):
        publish(f"http://{address}", 3)
        assert len(seen) == 3


def test_a_gateway_that_is_slow_gets_the_push(publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauges, "TRY_TIMEOUT", 10)
    seen = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        seen.append(request.path)
        time.sleep(1)  # the slowness itself
        request.send_response(202)
        request.end_headers()

    with serving(answer) as address:
        publish(f"http://{address}", 3)
    assert len(seen) == 1


@pytest.mark.parametrize(("codes", "tries"), [((400,), 1), ((401,), 1), ((302,), 1), ((500, 500, 500), 3)])
def test_a_gateway_that_refuses_is_named_without_the_password(
    codes: tuple[int, ...], tries: int, publish: Publish
) -> None:
    with answering(*codes) as (address, seen):
        with pytest.raises(LagDetectorError, match=f"http://{address} .*answered {codes[0]}") as told:
            publish(f"http://me:s%20cret@{address}", 3)
        assert "cret" not in str(told.value)
        assert seen == ["Basic bWU6cyBjcmV0"] * tries


def test_a_redirect_is_not_followed(publish: Publish) -> None:
    with answering() as (elsewhere, seen):

        def answer(request: BaseHTTPRequestHandler) -> None:
            request.send_response(307)
            request.send_header("Location", f"http://{elsewhere}{request.path}")
            request.end_headers()

        with serving(answer) as address, pytest.raises(LagDetectorError, match="answered 307"):
            publish(f"http://me:secret@{address}", 3)
        assert seen == []


def test_a_proxy_is_not_asked_for_this_machine(
    publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pushgateway(tmp_path, free_port()) as address:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
        monkeypatch.setenv("no_proxy", "elsewhere")
        publish(address, 3)


def test_a_name_that_nobody_has(publish: Publish) -> None:
    with pytest.raises(LagDetectorError, match=r"http://no-such-host\.invalid:9091 .*(name|address)"):
        publish("http://no-such-host.invalid:9091", 3)


def test_a_gateway_that_never_answers_is_given_up(publish: Publish) -> None:
    with socket.socket() as black_hole:
        black_hole.bind(("127.0.0.1", 0))
        black_hole.listen()
        with pytest.raises(LagDetectorError, match="timed out"):
            publish(f"http://127.0.0.1:{black_hole.getsockname()[1]}", 3)


def test_a_gateway_that_never_ends_its_answer_is_given_up(publish: Publish) -> None:
    """Each of its bytes arrives within the timeout of the socket."""
    given_up = Event()

    def answer(request: BaseHTTPRequestHandler) -> None:
        try:
            while not given_up.wait(0.1):
                request.wfile.write(b"H")
        except OSError:
            pass  # given up, indeed

    with serving(answer) as address:
        begin = time.monotonic()
        try:
            with pytest.raises(LagDetectorError, match="timed out"):
                publish(f"http://{address}", 3)
        finally:
            given_up.set()
        assert time.monotonic() - begin < 10


def test_the_tries_end_in_time(publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the real patience: a black hole costs 30 seconds, and many tries are made in them."""
    monkeypatch.undo()
    with socket.socket() as black_hole:
        black_hole.bind(("127.0.0.1", 0))
        black_hole.settimeout(0)
        black_hole.listen()
        begin = time.monotonic()
        with pytest.raises(LagDetectorError, match="timed out"):
            publish(f"http://127.0.0.1:{black_hole.getsockname()[1]}", 3)
        assert time.monotonic() - begin < 33
        for _ in range(4):
            black_hole.accept()


@pytest.mark.parametrize("url", ["localhost:9091", "ftp://host", "http://host:port", "http://", "http://host:0"])
def test_an_address_that_is_none_is_refused(url: str, publish: Publish) -> None:
    with pytest.raises(LagDetectorError, match="PUSHGATEWAY_URL is not of the form"):
        publish(url, 3)


@pytest.mark.parametrize(
    ("persistent", "end", "left"),
    [pytest.param(True, signal.SIGTERM, {GAUGE: 3}, id="kept"), pytest.param(False, signal.SIGKILL, {}, id="lost")],
)
def test_after_a_restart_the_next_push_is_right(
    persistent: bool, end: signal.Signals, left: dict[str, float], publish: Publish, tmp_path: Path
) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [program("prometheus-pushgateway"), f"--web.listen-address=127.0.0.1:{port}"]
    command += [f"--persistence.file={tmp_path / 'gauges' if persistent else ''}"]
    with running(command, f"{address}/-/ready", tmp_path / "log") as gateway:
        publish(address, 3)
        gateway.send_signal(end)
        gateway.wait(30)
    with running(command, f"{address}/-/ready", tmp_path / "log"):
        assert truth.gauges(address) == left
        publish(address, 6)
        assert truth.gauges(address) == {GAUGE: 6}


def test_user_and_password(publish: Publish, tmp_path: Path) -> None:
    """The hash is that of the password `s cret`, by bcrypt."""
    (tmp_path / "web.yml").write_text(
        "basic_auth_users: {me: $2b$04$ZEDlSfTElp6VfAyp6dZ5Me.FefFUrTiINVGCRYttrs7tIpcNXoHTy}\n"
    )
    with pushgateway(tmp_path, free_port(), f"--web.config.file={tmp_path / 'web.yml'}") as address:
        host = address.removeprefix("http://")
        publish(f"http://me:s%20cret@{host}", 3)
        for login in ("me:wr%20ng@", "you:s%20cret@", ""):
            with pytest.raises(LagDetectorError, match=f"{address} .*answered 401") as told:
                publish(f"http://{login}{host}", 6)
            assert "cret" not in str(told.value)
            assert "ng@" not in str(told.value)


def test_https(publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    for pem in certificate.cert_chain_pems:
        pem.write_to_path(tmp_path / "cert.pem", append=True)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    (tmp_path / "web.yml").write_text(
        f"tls_server_config: {{cert_file: {tmp_path / 'cert.pem'}, key_file: {tmp_path / 'key.pem'}}}\n"
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    options = (f"--web.config.file={tmp_path / 'web.yml'}",)
    with pushgateway(tmp_path, free_port(), *options, scheme="https") as address:
        publish(address, 3)
        monkeypatch.delenv("SSL_CERT_FILE")
        with pytest.raises(LagDetectorError, match="certificate verify failed"):
            publish(address, 6)
