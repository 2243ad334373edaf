"""Publishing: what arrives at a real Pushgateway, and how a push ends that does not."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from urllib.request import urlopen

import pytest

from demo.stack import free_port, pushgateway
from lag_detector import gauges
from lag_detector.errors import LagDetectorError


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauges, "WAITS", (0.1, 0.2))
    monkeypatch.setattr(gauges, "TRY_TIMEOUT", 0.5)


@contextmanager
def answering(*codes: int) -> Iterator[tuple[str, list[str]]]:
    """Serve these answers, one for each request; gives the address and the requests' Authorization headers."""
    seen: list[str] = []
    answers = iter(codes)

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            seen.append(self.headers.get("Authorization", ""))
            self.send_response(next(answers))
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}", seen
        finally:
            server.shutdown()
            thread.join(5)


def test_publish_replaces_and_forget_removes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pushgateway(tmp_path, free_port()) as address:
        monkeypatch.setenv("PUSHGATEWAY_URL", address + "/")

        def shown() -> list[str]:
            with urlopen(f"{address}/metrics", timeout=5) as answer:
                return [line for line in answer.read().decode().splitlines() if line.startswith("v{")]

        gauges.publish("v", 3, "help")
        gauges.publish("v", 6, "help")
        assert shown() == ['v{instance="",job="v"} 6']
        gauges.forget("v")
        gauges.forget("v")
        assert shown() == []
    assert capsys.readouterr().out == f"v 3 pushed to {address}\nv 6 pushed to {address}\n"


def test_a_gateway_that_recovers_gets_the_push(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(500, 503, 200) as (address, seen):
        monkeypatch.setenv("PUSHGATEWAY_URL", f"http://{address}")
        gauges.publish("v", 3, "help")
        assert len(seen) == 3


@pytest.mark.parametrize(("codes", "tries"), [((400,), 1), ((401,), 1), ((302,), 1), ((500, 500, 500), 3)])
def test_a_gateway_that_refuses_is_named_without_the_password(
    codes: tuple[int, ...], tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(*codes) as (address, seen):
        monkeypatch.setenv("PUSHGATEWAY_URL", f"http://me:s%20cret@{address}")
        with pytest.raises(LagDetectorError, match=f"http://{address} .*answered {codes[0]}") as told:
            gauges.publish("v", 3, "help")
        assert "cret" not in str(told.value)
        assert seen == ["Basic bWU6cyBjcmV0"] * tries


def test_a_gateway_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as black_hole:
        black_hole.bind(("127.0.0.1", 0))
        black_hole.listen()
        monkeypatch.setenv("PUSHGATEWAY_URL", f"http://127.0.0.1:{black_hole.getsockname()[1]}")
        with pytest.raises(LagDetectorError, match="timed out"):
            gauges.publish("v", 3, "help")


@pytest.mark.parametrize("url", ["localhost:9091", "ftp://host", "http://host:port", "http://", "http://host:0"])
def test_an_address_that_is_none_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSHGATEWAY_URL", url)
    with pytest.raises(LagDetectorError, match="PUSHGATEWAY_URL is not of the form"):
        gauges.publish("v", 3, "help")
