"""Run a Pushgateway and a Prometheus on free ports of this machine."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

from demo.programs import program, web_pages
from lag_detector.errors import LagDetectorError

ROOT = Path(__file__).parents[1]
LAG = (
    "last_over_time(visits_writer_version{}[1m:]) "
    "- ignoring(job) group_right() last_over_time((visits_reader_version{}[1m:]))"
)
ALERT = "Visits consumer lag"

# What to replace in the files under prometheus/, so that the alert takes seconds instead of minutes.
REAL: dict[str, str] = {}
COMPRESSED = {"interval: 15s": "interval: 1s", "interval: 1m": "interval: 4s", "for: 2m": "for: 8s"}

T = TypeVar("T")


class Stack(NamedTuple):
    """The addresses of a running stack."""

    prometheus: str
    pushgateway: str
    grafana: str = ""  # only with Docker

    def query(self, promql: str, at: float | None = None) -> list[float]:
        """Return the value of each series that a query finds, now or at a Unix time."""
        when = {} if at is None else {"time": at}
        result = self.get(f"query?{urlencode({'query': promql, **when})}")["result"]
        return [float(series["value"][1]) for series in result]

    def alert(self) -> dict[str, Any]:
        """Return the rule of the alert as Prometheus describes it: its state, its last evaluation and more."""
        rules: list[dict[str, Any]] = [rule for group in self.get("rules")["groups"] for rule in group["rules"]]
        return next(rule for rule in rules if rule["name"] == ALERT)

    def alert_state(self) -> str:
        """Return the state of the alert: inactive, pending or firing."""
        return str(self.alert()["state"])

    def get(self, path: str) -> Any:
        """Return the data with which Prometheus' API answers a path such as `rules`."""
        with urlopen(f"{self.prometheus}/api/v1/{path}", timeout=10) as answer:
            return json.load(answer)["data"]


def wait_for(what: str, probe: Callable[[], T | None], limit: float) -> T:
    """Call `probe` until it returns something, and return that.

    Raises:
        LagDetectorError: `limit` seconds have passed.
    """
    end = time.monotonic() + limit
    while not (found := probe()):
        if time.monotonic() > end:
            raise LagDetectorError(f"gave up after waiting {limit:.0f} s for {what}; run it again")
        time.sleep(0.2)
    return found


def last_line(printed: str) -> str:
    """Return the last line that a program printed: its result, or why it failed."""
    return printed.strip().splitlines()[-1] if printed.strip() else ""


def prometheus_files(folder: Path, pushgateway: str, timing: dict[str, str]) -> Path:
    """Copy the configuration of Prometheus to a folder, with another Pushgateway (host and port) and other times."""
    copy = folder / "prometheus"
    shutil.copytree(ROOT / "prometheus", copy)
    for file in copy.rglob("*.yml"):
        text = file.read_text().replace("pushgateway:9091", pushgateway)
        for real, compressed in timing.items():
            text = text.replace(real, compressed)
        file.write_text(text)
    return copy


def listening_on(log: Path) -> str:
    """Return the host and port that a Pushgateway, a Prometheus or a watcher has logged. With port 0 it chooses one."""
    found = re.search(r'("Listening on".* address=|metrics at http://)([^\s/]+)', log.read_text(errors="replace"))
    return found[2] if found else ""


@contextmanager
def running(
    command: list[str], ready: str, log: Path, address: Callable[[Path], str] = listening_on
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the end of the `with` block, which starts once the program answers.

    Args:
        command: the program and its arguments.
        ready: the URL at which it answers. `{address}` in it stands for the address that the program has chosen.
        log: the file for what it prints.
        address: finds that address in the file.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)

    def answers() -> bool:
        if process.poll() is not None:
            last = last_line(log.read_text(errors="replace"))
            raise LagDetectorError(f"{Path(command[0]).name} did not start ({last}); fix that and run it again")
        try:
            with urlopen(ready.format(address=address(log)), timeout=5):
                return True
        except HTTPError as error:
            return error.code == 401
        except (OSError, ValueError):  # nobody listens yet, or the address is still unknown
            return False

    try:
        wait_for(ready, answers, 60)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


@contextmanager
def pushgateway(
    folder: Path, *options: str, scheme: str = "http", host: str = "127.0.0.1", port: int = 0
) -> Iterator[str]:
    """Run a Pushgateway that keeps its gauges in `folder`, and yield its address.

    Without that option, Debian's keeps them where the machine's own gateway does.
    """
    log = folder / "pushgateway.log"
    command = [program("prometheus-pushgateway"), f"--web.listen-address={host}:{port}", *options]
    command += [f"--persistence.file={folder / 'gauges'}"]
    with running(command, f"{scheme}://{{address}}/-/ready", log):
        yield f"{scheme}://{listening_on(log)}"


@contextmanager
def local_stack(
    folder: Path, timing: dict[str, str], pushgateway_port: int = 0, prometheus_port: int = 0
) -> Iterator[Stack]:
    """Run both as processes of this machine; on free ports unless they are given."""
    log = folder / "prometheus.log"
    with pushgateway(folder, port=pushgateway_port) as gateway:
        files = prometheus_files(folder, gateway.removeprefix("http://"), timing)
        command = [program("prometheus"), f"--config.file={files / 'prometheus.yml'}", *web_pages()]
        command += [f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{prometheus_port}"]
        with running(command, "http://{address}/-/ready", log):
            yield Stack(f"http://{listening_on(log)}", gateway)
