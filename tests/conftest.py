"""A reader's machine: a folder to work in, the scripts as processes, a real Pushgateway and Prometheus."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from demo.stack import COMPRESSED, ROOT, Stack, free_port, local_stack, pushgateway, wait_for
from lag_detector.errors import LagDetectorError
from lag_detector.gauges import READER_VERSION, WRITER_VERSION
from lag_detector.session import delta_session

import pytest
from pyspark.sql import SparkSession

# Root may write everywhere, unless it gives that up.
GIVE_UP_ROOT = ("setpriv", "--bounding-set=-dac_override") if os.geteuid() == 0 else ()


def complaints(stderr: str) -> list[str]:
    """Give what a script said on standard error beside the line before each slow step."""
    return [line for line in stderr.splitlines() if not line.endswith("…")]


def becomes(look: Callable[[], object], expected: object, limit: float = 30) -> None:
    """Wait until `look` gives what is expected; if it never does, say what it gave at last."""
    seen = look()

    def same() -> bool | None:
        nonlocal seen
        seen = look()
        return seen == expected or None

    with suppress(LagDetectorError):
        wait_for("what is expected", same, limit)
    assert seen == expected


class Reader:
    """Somebody who runs the scripts, far from the repository and far from UTC."""

    def __init__(self, folder: Path, stack: Stack) -> None:
        self.folder = folder
        self.stack = stack
        self.desk = folder / "desk"
        self.desk.mkdir()
        self.warehouse = folder / "warehouse"

    def start(self, script: str, prefix: Sequence[str] = (), **settings: str) -> subprocess.Popen[str]:
        """Start a script and its option behind a command's prefix, in a process group of its own."""
        environment = {
            **os.environ,
            "TZ": "Asia/Tokyo",
            "PYTHONUNBUFFERED": "",  # set on many a build machine, on no reader's
            "PUSHGATEWAY_URL": self.stack.pushgateway,
            "VISITS_WAREHOUSE": str(self.warehouse),
            **settings,
        }
        name, *option = script.split()
        command = [*prefix, sys.executable, str(ROOT / name), *option]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=self.desk, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
        )

    def run(self, script: str, prefix: Sequence[str] = (), **settings: str) -> subprocess.CompletedProcess[str]:
        """Run a script to its end, whatever that is."""
        with self.start(script, prefix, **settings) as process:
            try:
                out, err = process.communicate(timeout=180)
            finally:
                process.kill()
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def succeed(self, script: str, prefix: Sequence[str] = (), **settings: str) -> str:
        """Run a script that must do its work without a warning; gives its standard output."""
        done = self.run(script, prefix, **settings)
        assert done.returncode == 0, done.stderr
        assert complaints(done.stderr) == []
        return done.stdout

    def fail(self, script: str, prefix: Sequence[str] = (), **settings: str) -> str:
        """Run a script that must stop with one sentence; gives the sentence."""
        done = self.run(script, prefix, **settings)
        assert done.returncode == 1, done
        told = complaints(done.stderr)
        assert len(told) == 1, done.stderr
        assert told[0].startswith("Error: ")
        assert told[0].endswith(".")
        assert "Exception" not in told[0]
        return told[0]

    def prometheus_shows(self, *expected: list[float]) -> None:
        """Wait until Prometheus holds these values of the writer's and the reader's version."""
        queries = (WRITER_VERSION, READER_VERSION)
        wait_for(
            f"{expected} in Prometheus", lambda: tuple(map(self.stack.query, queries)) == expected or None, limit=30
        )

    def alert_is(self, state: str) -> None:
        """Wait until the alert is in this state."""
        wait_for(f"the alert to be {state}", lambda: self.stack.alert_state() == state or None, limit=60)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--histories", type=int, default=6, help="random histories of a table to go through")
    parser.addoption("--kills", type=int, default=4, help="scripts to end at any moment")
    parser.addoption("--seed", type=int, default=1, help="where the random choices start")


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with local_stack(tmp_path_factory.mktemp("stack"), COMPRESSED) as running:
        yield running


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """One session for the tests that look at many cases; the scripts each have their own."""
    with delta_session("tests", str(tmp_path_factory.mktemp("spark"))) as session:
        # VACUUM lists the table's files in as many tasks, 10,000 otherwise: 22 s for a handful of files.
        session.conf.set("spark.sql.sources.parallelPartitionDiscovery.parallelism", "2")
        yield session


@pytest.fixture(scope="module")
def pushgateway_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pushgateway(tmp_path_factory.mktemp("pushgateway"), free_port()) as address:
        yield address


@pytest.fixture(scope="module")
def reader(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    return Reader(tmp_path_factory.mktemp("reader"), stack)


@pytest.fixture
def alone(stack: Stack, tmp_path: Path) -> Reader:
    """A reader with a warehouse of their own."""
    return Reader(tmp_path, stack)
