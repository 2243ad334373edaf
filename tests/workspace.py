"""Run the scripts as processes, far from the repository and from UTC, as a user does."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from tutorial.visits import READER_VERSION, WRITER_VERSION

from demo.stack import ROOT, Stack, wait_for
from lag_detector import Pushgateway
from lag_detector.errors import LagDetectorError

# Root can write everywhere, unless it gives that up.
WITHOUT_ROOT = ("setpriv", "--bounding-set=-dac_override") if os.geteuid() == 0 else ()


def errors(stderr: str) -> list[str]:
    """Return what a script wrote on standard error, without the line before each slow step."""
    return [line for line in stderr.splitlines() if not line.endswith("…")]


def wait_until_equal(look: Callable[[], object], expected: object, limit: float = 30) -> None:
    """Wait until `look` returns what is expected. After `limit` seconds fail with what it returned last."""
    seen = look()

    def same() -> bool | None:
        nonlocal seen
        seen = look()
        return seen == expected or None

    with suppress(LagDetectorError):
        wait_for("what is expected", same, limit)
    assert seen == expected


class Workspace:
    """A working directory, a warehouse, and a monitoring stack."""

    def __init__(self, folder: Path, stack: Stack) -> None:
        self.folder = folder
        self.stack = stack
        self.working_directory = folder / "cwd"
        self.working_directory.mkdir()
        self.warehouse = folder / "warehouse"

    def copy(self, warehouse: Path) -> None:
        """Start from a copy of a ready-made warehouse, and from no gauges, as after create_table.py."""
        shutil.copytree(warehouse, self.warehouse)
        for metric in (WRITER_VERSION, READER_VERSION):
            Pushgateway(self.stack.pushgateway).delete_metric(metric)

    def start(self, command: str, prefix: Sequence[str] = (), **settings: str) -> subprocess.Popen[str]:
        """Start a script in a process group of its own.

        Args:
            command: the script's path in the repository, and its arguments.
            prefix: a program that runs it, and that program's arguments.
            settings: environment variables.
        """
        environment = {
            **os.environ,
            "TZ": "Asia/Tokyo",
            "PYTHONUNBUFFERED": "",  # set on many build machines, but not on users' machines
            "PUSHGATEWAY_URL": self.stack.pushgateway,
            "VISITS_WAREHOUSE": str(self.warehouse),
            **settings,
        }
        name, *arguments = command.split()
        return subprocess.Popen(
            [*prefix, sys.executable, str(ROOT / name), *arguments],
            cwd=self.working_directory,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, command: str, prefix: Sequence[str] = (), **settings: str) -> subprocess.CompletedProcess[str]:
        """Run a script to its end, whatever that is."""
        with self.start(command, prefix, **settings) as process:
            try:
                out, err = process.communicate(timeout=180)
            finally:
                process.kill()
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def succeed(self, command: str, prefix: Sequence[str] = (), **settings: str) -> str:
        """Run a script that must succeed without a warning, and return its standard output."""
        done = self.run(command, prefix, **settings)
        assert done.returncode == 0, done.stderr
        assert errors(done.stderr) == []
        return done.stdout

    def fail(self, command: str, prefix: Sequence[str] = (), **settings: str) -> str:
        """Run a script that must end with one sentence, and return the sentence."""
        done = self.run(command, prefix, **settings)
        assert done.returncode == 1, done
        lines = errors(done.stderr)
        assert len(lines) == 1, done.stderr
        assert lines[0].startswith("Error: ")
        assert lines[0].endswith(".")
        assert "Exception" not in lines[0]
        return lines[0]

    def wait_for_versions(self, *expected: list[float]) -> None:
        """Wait until Prometheus has these values of the writer's and the reader's version."""
        queries = (WRITER_VERSION, READER_VERSION)
        wait_for(
            f"{expected} in Prometheus", lambda: tuple(map(self.stack.query, queries)) == expected or None, limit=30
        )

    def wait_for_alert(self, state: str) -> None:
        """Wait until the alert is in this state."""
        wait_for(f"the alert to be {state}", lambda: self.stack.alert_state() == state or None, limit=60)
