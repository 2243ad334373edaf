"""The story in the terminal, and what it says when it cannot be told."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

from demo import programs
from demo.stack import ROOT, free_port, pushgateway, wait_for
from lag_detector.errors import LagDetectorError

import pytest

DEMO = [sys.executable, "-u", "-m", "demo"]


def is_closed(address: str) -> bool:
    with socket.socket() as client:
        host, port = address.removeprefix("http://").split(":")
        return client.connect_ex((host, int(port))) != 0


def addresses(told: str) -> list[str]:
    return re.findall(r"http://[\d.]+:\d+", told.splitlines()[0])


def test_the_story_is_told_and_the_stack_is_stopped() -> None:
    environment = {**os.environ, "TIMING": ""}
    done = subprocess.run(DEMO, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    seen = [line.split() for line in done.stdout.split("What Prometheus said:")[1].splitlines()[2:]]
    told = [(row[-4:-1], row[-1]) for row in seen[:8]]
    assert told == [
        (["3", "-", "-"], "Normal"),
        (["3", "3", "0"], "Normal"),
        (["3", "3", "0"], "Normal"),
        (["6", "3", "3"], told[3][1]),
        (["6", "3", "3"], "Pending"),
        (["6", "3", "3"], "Firing"),
        (["6", "6", "0"], told[6][1]),
        (["6", "6", "0"], "Normal"),
    ]
    assert len(addresses(done.stdout)) == 2
    assert all(map(is_closed, addresses(done.stdout)))


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_story_that_is_cut_off_stops_its_stack_too(end: signal.Signals, tmp_path: Path) -> None:
    told = tmp_path / "told"
    with told.open("w") as out:
        process = subprocess.Popen(DEMO, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT)
        try:
            wait_for("the stack", lambda: "Times are" in told.read_text() or None, 60)
            assert not any(map(is_closed, addresses(told.read_text())))
            process.send_signal(end)
            assert process.wait(60) == 130
        finally:
            process.kill()
    assert all(map(is_closed, addresses(told.read_text())))
    assert "Traceback" not in told.read_text()


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port()))
        taken.listen()
        sentence = pytest.raises(LagDetectorError, match="did not start .*address already in use")
        with sentence, pushgateway(tmp_path, taken.getsockname()[1]):
            pass


def test_neither_docker_nor_debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(programs, "FETCHED", tmp_path / "nothing")
    with pytest.raises(LagDetectorError, match="install Docker with its compose plugin"):
        programs.program("prometheus")
