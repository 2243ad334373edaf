"""The scripts on Spark's own cluster: they run unchanged there, without the settings for one machine."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from signal import SIGKILL
from typing import Any, NamedTuple
from urllib.request import urlopen

from tutorial.visits import READER_VERSION, WRITER_VERSION

from demo.stack import ROOT, Stack, running, wait_for
from fast_spark.jars import EXCLUDES, JARS
from fast_spark.tuning import JAVA_OPTIONS, ONE_COMPILER, SETTINGS, SHORT_RUN
from tests.helpers.script_outputs import CREATED, VISITS
from tests.helpers.workspace import Workspace, errors, wait_until_equal

import psutil
import pytest
from delta import configure_spark_with_delta_pip
from pyspark.find_spark_home import _find_spark_home
from pyspark.sql import SparkSession

pytestmark = [pytest.mark.launcher, pytest.mark.slow]

BIN = Path(_find_spark_home(), "bin")
DEPLOY = "org.apache.spark.deploy"
LOOPBACK = "127.0.0.1"
KEPT_JARS = ("--jars", ",".join(map(str, sorted(JARS.glob("*.jar")))))
END_WITH_PARENT = ("setpriv", "--pdeathsig", "TERM")  # even if this test run is killed
MACHINE = {
    "SPARK_LOCAL_IP": LOOPBACK,
    "PYSPARK_PYTHON": sys.executable,
    # Halves the work of ten Javas on two cores. It is in neither Spark's settings nor the command lines checked below.
    "JDK_JAVA_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
}
# Each differs from the tutorial's.
SPARK_DEFAULTS = """
spark.cores.max 1
spark.executor.cores 1
spark.executor.memory 512m
spark.driver.host localhost
spark.scheduler.minRegisteredResourcesRatio 1.0
spark.sql.shuffle.partitions 4
spark.databricks.delta.snapshotPartitions 4
spark.eventLog.enabled true
spark.eventLog.dir {folder}/events
spark.eventLog.compress false
spark.eventLog.rolling.enabled false
"""
LIMIT = 300.0  # seconds for one script
FRAUD = f"{READER_VERSION}_fraud"


class Cluster(NamedTuple):
    """A running cluster and a workspace."""

    master: str
    workers: set[str]  # the addresses of their web pages
    folder: Path
    workspace: Workspace

    @contextmanager
    def submitted(self, script: str, *options: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        """Submit a script, and kill it at the end of the `with` block if it is still running."""
        command = [*END_WITH_PARENT, str(BIN / "spark-submit"), "--master", self.master, "--deploy-mode", "client"]
        ours = {"TZ": "Asia/Tokyo", "SPARK_CONF_DIR": str(self.folder), **MACHINE}
        with (self.folder / "out").open("wb") as out, (self.folder / "err").open("wb") as err:
            process = subprocess.Popen(
                [*command, *options, str(ROOT / script)],
                cwd=self.workspace.working_directory,
                env={**os.environ, **ours, **self.workspace.settings(environment)},
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            kill_group(process)

    def finish(self, process: subprocess.Popen[bytes]) -> list[str]:
        """Wait until a script has succeeded, and return the lines of its results."""
        assert process.wait(LIMIT) == 0, (self.folder / "out").read_text() + (self.folder / "err").read_text()[-3000:]
        assert processes_in_group(process.pid) == []
        return errors((self.folder / "out").read_text())  # spark-submit puts both of Python's outputs into one

    def submit(self, script: str, *options: str) -> str:
        """Submit a script that runs on both workers, wait until it has succeeded, and return its results."""
        with self.submitted(script, *options, "--conf", "spark.cores.max=2") as process:
            return "".join(f"{line}\n" for line in self.finish(process))


def processes_in_group(group: int) -> list[str]:
    """Return the command lines of what runs in a process group."""
    commands = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                commands.append(" ".join(process.cmdline()))
    return commands


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill what still runs in a process group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, SIGKILL)
    process.wait(30)


def web_page(log: Path) -> str:
    """Return the host and port of a daemon's web page, or nothing. Its log names the ones that it has chosen."""
    found = re.search(r"service '\w+UI' on port (\d+)", log.read_text())
    return f"{LOOPBACK}:{found[1]}" if found else ""


@contextmanager
def daemon(log: Path, *arguments: str) -> Iterator[None]:
    """Run a master or a worker until the end of the `with` block. After that, none of its executors may still run."""
    environment = (f"{name}={value}" for name, value in MACHINE.items())
    command = ["setsid", *END_WITH_PARENT, "env", *environment, str(BIN / "spark-class"), *arguments]
    with running(command, "http://{address}/json/", log, web_page) as process:
        try:
            yield
            process.terminate()
            wait_until_equal(lambda: processes_in_group(process.pid), [])
        finally:
            kill_group(process)


@pytest.fixture(scope="module")
def cluster(pushgateway_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A master and two workers with one core each."""
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "events").mkdir()
    (folder / "spark-defaults.conf").write_text(SPARK_DEFAULTS.format(folder=folder))
    address = ("--host", LOOPBACK, "--port", "0", "--webui-port", "0")
    log = folder / "master.log"

    def workers() -> set[str] | None:
        with urlopen(f"http://{web_page(log)}/json/", timeout=10) as answer:
            registered = json.load(answer)["workers"]
        alive = {worker["webuiaddress"] for worker in registered if worker["state"] == "ALIVE"}
        return alive if len(alive) == 2 else None

    with ExitStack() as daemons:
        daemons.enter_context(daemon(log, f"{DEPLOY}.master.Master", *address))
        (master,) = re.findall(r"Starting Spark master at (\S+)", log.read_text())
        for name in ("work0", "work1"):
            arguments = [*address, "-c", "1", "-m", "1g", "-d", str(folder / name), master]
            daemons.enter_context(daemon(folder / f"{name}.log", f"{DEPLOY}.worker.Worker", *arguments))
        alive = wait_for("two workers", workers, 60)
        yield Cluster(master, alive, folder, Workspace(folder, Stack("", pushgateway_url)))


# Each test continues where the one before has ended.


def test_create_table_under_spark_submit_with_packages_prints_the_same(cluster: Cluster) -> None:
    coordinates = configure_spark_with_delta_pip(SparkSession.Builder())._options["spark.jars.packages"]
    ivy = ("--conf", f"spark.jars.ivy={cluster.folder / 'ivy'}")
    packages = ("--packages", coordinates, "--exclude-packages", EXCLUDES, *ivy)
    assert cluster.submit("create_table.py", *packages) == CREATED


def test_long_running_consumer_next_to_writer_without_spark_submit_stops_on_sigterm(cluster: Cluster) -> None:
    """Each has one of the two executors. The consumer's Python gets the signal, and stops Spark."""
    workspace = cluster.workspace
    with cluster.submitted("examples/long_running_consumer.py", *KEPT_JARS, VISITS_CONSUMER="fraud") as consumer:
        wait_until_equal(workspace.gauges, {FRAUD: 0}, LIMIT)
        printed_by_writer = workspace.succeed(
            "visits_creator_job.py", SPARK_MASTER=cluster.master, SPARK_CONF_DIR=str(cluster.folder), **MACHINE
        )
        assert printed_by_writer == workspace.pushed(WRITER_VERSION, 3)
        wait_until_equal(workspace.gauges, {WRITER_VERSION: 3, FRAUD: 3}, LIMIT)
        (python,) = [child for child in psutil.Process(consumer.pid).children() if child.name().startswith("python")]
        python.terminate()
        printed = cluster.finish(consumer)
    assert printed[-1] + "\n" == workspace.pushed(FRAUD, 3)
    assert sum(line.startswith("|visit ") for line in printed) == 9


def test_consumer_under_spark_submit_prints_the_same(cluster: Cluster) -> None:
    printed = cluster.submit("visits_consumer.py", *KEPT_JARS)
    assert printed == VISITS + cluster.workspace.pushed(READER_VERSION, 3)
    assert cluster.workspace.gauges() == {WRITER_VERSION: 3, READER_VERSION: 3, FRAUD: 3}


class App(NamedTuple):
    """An application, as its event log describes it."""

    name: str
    settings: dict[str, str]
    ran_on: set[str]  # the pages of the workers whose executors ran its tasks


def read_app(event_log: Path) -> App:
    events: dict[str, list[dict[str, Any]]] = {}
    for event in map(json.loads, event_log.read_text().splitlines()):
        events.setdefault(event["Event"].removeprefix("SparkListener"), []).append(event)
    pages = {
        event["Executor ID"]: event["Executor Info"]["Log Urls"]["stdout"].partition("/logPage")[0]
        for event in events["ExecutorAdded"]
    }
    settings = dict(events["EnvironmentUpdate"][0]["Spark Properties"])
    return App(
        settings["spark.app.name"], settings, {pages[task["Task Info"]["Executor ID"]] for task in events["TaskEnd"]}
    )


def test_apps_on_cluster_ran_on_the_workers_without_a_setting_for_one_machine(cluster: Cluster) -> None:
    apps = [read_app(file) for file in sorted((cluster.folder / "events").iterdir())]
    side_by_side = ["long_running_consumer", "visits_creator_job"]
    assert [app.name for app in apps] == ["create_table", *side_by_side, "visits_consumer"]
    assert [len(app.ran_on) for app in apps if app.name in side_by_side] == [1, 1]
    assert set().union(*(app.ran_on for app in apps if app.name not in side_by_side)) == cluster.workers
    for_java = (*JAVA_OPTIONS, ONE_COMPILER, "SharedArchiveFile")
    for app in apps:
        assert app.settings.items() & (SETTINGS | SHORT_RUN).items() == set(), app.name
        assert "spark.driver.extraClassPath" not in app.settings
        options = " ".join(value for name, value in app.settings.items() if name.endswith("JavaOptions"))
        assert [option for option in for_java if option in options] == [], app.name
    executors = [file.read_text().splitlines()[0] for file in cluster.folder.glob("work*/app-*/*/stderr")]
    assert len(executors) >= 6  # one for each of the two side by side, two for each of the others
    assert [line for line in executors if not line.startswith("Spark Executor Command: ")] == []
    assert [option for option in for_java for line in executors if option in line] == []
    assert list(cluster.workspace.working_directory.iterdir()) == []
