"""Run the scripts as processes, far from the repository and from UTC, as a user does."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from importlib import import_module
from io import StringIO
from pathlib import Path
from signal import SIGKILL

from tutorial.script import progress
from tutorial.error_messages import error_message
from tutorial.visits import READER_VERSION, WRITER_VERSION

from demo.stack import ROOT, Stack
from lag_detector import Pushgateway
from tests.helpers.disk_truth import Disk, gauges
from tests.helpers.lesson_steps import clear_session
from tests.helpers.running_streams import v2_enabled

import pytest
from pyspark.sql import SparkSession

Process = subprocess.Popen[str]

# Root can write everywhere, unless it gives that up.
WITHOUT_ROOT = ("setpriv", "--bounding-set=-dac_override") if os.geteuid() == 0 else ()


def errors(stderr: str) -> list[str]:
    """Return what a script wrote on standard error, without the line before each slow step."""
    return [line for line in stderr.splitlines() if not line.endswith("…")]


def wait_until_equal(look: Callable[[], object], expected: object, limit: float = 30) -> None:
    """Wait until `look` returns what is expected. After `limit` seconds fail with what it returned last."""
    end = time.monotonic() + limit
    while (seen := look()) != expected and time.monotonic() < end:
        time.sleep(0.05)
    assert seen == expected


class Workspace:
    """A working directory, a warehouse, and a monitoring stack."""

    def __init__(self, folder: Path, stack: Stack) -> None:
        self.folder = folder
        self.stack = stack
        self.repository = ROOT
        self.working_directory = folder / "cwd"
        self.working_directory.mkdir(exist_ok=True)
        self.warehouse = folder / "warehouse"

    def copy(self, warehouse: Path) -> None:
        """Start from a copy of a ready-made warehouse, and from no gauges, as after create_table.py."""
        shutil.copytree(warehouse, self.warehouse)
        for metric in (WRITER_VERSION, READER_VERSION):
            Pushgateway(self.stack.pushgateway).delete_metric(metric)

    def copy_scripts(self) -> Path:
        """Run from now on a copy of the scripts, in its folder, and return its cache, which does not exist yet."""
        self.repository = self.working_directory = self.folder / "a user's copy"
        for package in ("delta_watch", "fast_spark", "lag_detector", "tutorial"):
            shutil.copytree(ROOT / package, self.repository / package)
        for script in ROOT.glob("*.py"):
            shutil.copy(script, self.repository)
        return self.repository / ".cache"

    @contextmanager
    def start(self, command: str, prefix: Sequence[str] = (), **settings: str) -> Iterator[Process]:
        """Start a script in a process group of its own, and kill the group at the end of the `with` block.

        Args:
            command: the script's path in the repository, or Python's own options; and the arguments.
            prefix: a program that runs it, and that program's arguments.
            settings: environment variables.
        """
        unusual = {"TZ": "Asia/Tokyo", "PYTHONUNBUFFERED": ""}  # many build machines set the latter, users do not
        name, *arguments = command.split()
        with subprocess.Popen(
            [*prefix, sys.executable, name if name.startswith("-") else str(self.repository / name), *arguments],
            cwd=self.repository if name == "-m" else self.working_directory,
            env={**os.environ, **unusual, **self.settings(settings)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                yield process
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, SIGKILL)

    def settings(self, more: dict[str, str]) -> dict[str, str]:
        """Return the environment variables that make a script use this workspace."""
        return {"PUSHGATEWAY_URL": self.stack.pushgateway, "VISITS_WAREHOUSE": str(self.warehouse), **more}

    def run(self, command: str, prefix: Sequence[str] = (), **settings: str) -> subprocess.CompletedProcess[str]:
        """Run a script to its end, whatever that is."""
        with self.start(command, prefix, **settings) as process:
            out, err = process.communicate(timeout=240)
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

    def pushed(self, group: str, version: int) -> str:
        """Return the line that a script prints after a push."""
        return f"{group} {version} pushed to {self.stack.pushgateway}\n"

    def gauges(self) -> dict[str, float]:
        """Return the versions that are on the Pushgateway, by the name of their group."""
        return gauges(self.stack.pushgateway)

    @property
    def disk(self) -> Disk:
        """The files of the warehouse."""
        return Disk(self.warehouse)


class SessionWorkspace(Workspace):
    """A workspace whose scripts run inside the shared session, which saves a start of Spark for each."""

    def __init__(self, workspace: Workspace, spark: SparkSession) -> None:
        super().__init__(workspace.folder, workspace.stack)
        self.spark = spark

    def run(self, command: str, prefix: Sequence[str] = (), **settings: str) -> subprocess.CompletedProcess[str]:
        """Run a script's `main` to its end, with the settings and the outputs of its own."""
        assert not prefix, "a program that runs the script needs a process"
        name, *arguments = command.split()
        script = import_module(name.removesuffix(".py").replace("/", "."))
        clear_session(self.spark)
        with pytest.MonkeyPatch.context() as patch, StringIO() as out, StringIO() as err:
            for variable, value in self.settings(settings).items():
                patch.setenv(variable, value)
            patch.setattr(script, "delta_session", self._session, raising=False)
            with redirect_stdout(out), redirect_stderr(err):
                try:
                    script.main(*arguments)
                    code = 0
                except Exception as error:
                    progress(f"Error: {error_message(error)}.")
                    code = 1
            return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())

    @contextmanager
    def _session(self, name: str, read_only: bool = False) -> Iterator[SparkSession]:
        with v2_enabled(self.spark, read_only):
            yield self.spark
