"""The demo shows every step and cleans up after itself, and its programs start or say why not."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

from demo import programs
from demo.stack import ROOT, pushgateway, wait_for
from lag_detector.errors import LagDetectorError

import pytest

DEMO = [sys.executable, "-u", "-m", "demo"]


def is_closed(address: str) -> bool:
    with socket.socket() as client:
        host, port = address.removeprefix("http://").split(":")
        return client.connect_ex((host, int(port))) != 0


def addresses(output: str) -> tuple[str, ...]:
    """Return Prometheus' and the Pushgateway's. They are in the second line if Docker could not run them."""
    found = re.search(r"^Prometheus (http://[\d.]+:\d+), Pushgateway (http://[\d.]+:\d+)", output, re.MULTILINE)
    assert found, output
    return found.groups()


def test_up_without_docker_runs_both_programs_until_down(tmp_path: Path) -> None:
    for folder in ("delta_watch", "demo", "fast_spark", "lag_detector", "prometheus", "tutorial"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    local = {variable: programs.program(name) for name, variable in programs.VARIABLES.items()}
    settings = {"PROMETHEUS_PORT": "0", "PUSHGATEWAY_PORT": "0", "DOCKER_HOST": f"unix://{tmp_path}/nobody"}
    environment = {**os.environ, **local, **settings}

    def run(command: str) -> str:
        process = [sys.executable, "-m", "demo.up", command]
        return subprocess.run(
            process, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True, timeout=120, check=True
        ).stdout

    try:
        started = run("up")
        assert not any(map(is_closed, addresses(started)))
        assert run("up") == started
        assert "There is no Grafana" in started
    finally:
        stopped = run("down")
    assert "are stopped" in stopped
    assert all(map(is_closed, addresses(started)))
    assert run("down") == "Nothing is running.\n"


@pytest.mark.slow
def test_demo_to_its_end_shows_every_state_and_stops_its_stack() -> None:
    environment = {**os.environ, "TIMING": ""}
    done = subprocess.run(DEMO, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    table = [line.split() for line in done.stdout.split("What Prometheus and the watcher said:")[1].splitlines()[2:]]
    rows = [(row[-5:-1], row[-1]) for row in table[:9]]
    assert rows == [
        (["3", "-", "-", "-"], "Normal"),
        (["3", "3", "0", "0"], "Normal"),
        (["3", "3", "0", "0"], "Normal"),
        (["6", "3", "3", "3"], rows[3][1]),
        (["6", "3", "3", "3"], "Pending"),
        (["6", "3", "3", "3"], "Firing"),
        (["6", "6", "0", "0"], rows[6][1]),
        (["6", "6", "0", "0"], "Normal"),
        (["9", "6", "3", "3"], rows[8][1]),
    ]
    assert re.search(r"a batch that was planned \d+\.\d s ago and has not ended", done.stdout)
    (once,) = re.findall(r"^checkpoints/visits_consumer  visits .*$", done.stdout, re.MULTILINE)
    assert once.split()[2:5] == ["9", "6", "3"]
    assert all(map(is_closed, addresses(done.stdout)))


@pytest.mark.parametrize("end", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_demo_when_interrupted_stops_its_stack(end: signal.Signals, tmp_path: Path) -> None:
    output = tmp_path / "output"
    with output.open("w") as out:
        process = subprocess.Popen(DEMO, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT)
        try:
            wait_for("the stack", lambda: "Times are" in output.read_text(), 60)
            assert not any(map(is_closed, addresses(output.read_text())))
            process.send_signal(end)
            assert process.wait(60) == 130
        finally:
            process.kill()
    assert all(map(is_closed, addresses(output.read_text())))
    assert "Traceback" not in output.read_text()


def test_pushgateway_on_a_port_in_use_raises(tmp_path: Path) -> None:
    with socket.socket() as in_use:
        in_use.bind(("127.0.0.1", 0))
        in_use.listen()
        error = pytest.raises(LagDetectorError, match="did not start .*address already in use")
        with error, pushgateway(tmp_path, port=in_use.getsockname()[1]):
            pass
