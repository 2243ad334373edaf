"""The scripts on Spark's own cluster, a master and two workers: unchanged, and with nothing that is for one machine."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from signal import SIGKILL
from typing import Any, NamedTuple
from urllib.request import urlopen

from demo.stack import ROOT, Stack, free_port, running, wait_for
from lag_detector.session import NOT_DELTA
from lag_detector.startup import JARS, JAVA_OPTIONS, ONE_COMPILER, SETTINGS, SHORT_RUN
from tests import truth
from tests.conftest import Reader, becomes, complaints
from tests.test_tutorial import CREATED, VISITS, pushed

import psutil
import pytest
from delta import configure_spark_with_delta_pip
from pyspark.find_spark_home import _find_spark_home
from pyspark.sql import SparkSession

BIN = Path(_find_spark_home(), "bin")
DEPLOY = "org.apache.spark.deploy"
LOOPBACK = "127.0.0.1"
KEPT_JARS = ("--jars", ",".join(map(str, sorted(JARS.glob("*.jar")))))
UNTIL_WE_END = ("setpriv", "--pdeathsig", "TERM")  # also when these tests are killed
MACHINE = {
    "SPARK_LOCAL_IP": LOOPBACK,
    "PYSPARK_PYTHON": sys.executable,
    # Half the work for two cores with ten Javas. Spark's own settings and command lines, where we look, do not have it.
    "JDK_JAVA_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
}
LIMIT = 300.0  # seconds for one script


class Cluster(NamedTuple):
    """A running cluster and somebody who works with it; each of their settings has another value than ours."""

    master: str
    workers: set[str]  # the addresses of their pages
    folder: Path
    reader: Reader

    @property
    def settings(self) -> dict[str, str]:
        return {
            "spark.master": self.master,
            "spark.cores.max": "2",
            "spark.executor.cores": "1",
            "spark.executor.memory": "512m",
            "spark.driver.host": "localhost",
            "spark.scheduler.minRegisteredResourcesRatio": "1.0",  # both workers, from the first task on
            "spark.sql.shuffle.partitions": "4",
            "spark.databricks.delta.snapshotPartitions": "4",
            "spark.eventLog.enabled": "true",
            "spark.eventLog.dir": str(self.folder / "events"),
            "spark.eventLog.compress": "false",
            "spark.eventLog.rolling.enabled": "false",
        }

    @contextmanager
    def submitted(self, script: str, *options: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        """Submit a script and its option, and end it with the block if it has not ended by then."""
        conf = [word for name, value in self.settings.items() for word in ("--conf", f"{name}={value}")]
        name, *option = script.split()
        command = [*UNTIL_WE_END, str(BIN / "spark-submit"), "--deploy-mode", "client", *conf, *options]
        command += [str(ROOT / name), *option]
        environment = {
            **os.environ,
            "TZ": "Asia/Tokyo",
            **MACHINE,
            "PUSHGATEWAY_URL": self.reader.stack.pushgateway,
            "VISITS_WAREHOUSE": str(self.reader.warehouse),
            **environment,
        }
        with (self.folder / "out").open("wb") as out, (self.folder / "err").open("wb") as err:
            process = subprocess.Popen(
                command, cwd=self.reader.desk, env=environment, stdout=out, stderr=err, start_new_session=True
            )
        try:
            yield process
        finally:
            end_group(process)

    def finish(self, process: subprocess.Popen[bytes]) -> list[str]:
        """Wait for the end of a script, which must do its work; gives the lines of its results."""
        assert process.wait(LIMIT) == 0, (self.folder / "out").read_text() + (self.folder / "err").read_text()[-3000:]
        assert left(process.pid) == []
        return complaints((self.folder / "out").read_text())  # spark-submit puts both of Python's outputs into one

    def submit(self, script: str, *options: str, **environment: str) -> str:
        """Submit a script and wait for its end; gives its results."""
        with self.submitted(script, *options, **environment) as process:
            return "".join(f"{line}\n" for line in self.finish(process))


def left(group: int) -> list[str]:
    """List what runs in a process group."""
    commands = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                commands.append(" ".join(process.cmdline()))
    return commands


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of a process group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, SIGKILL)
    process.wait(30)


@contextmanager
def daemon(log: Path, page: int, *words: str) -> Iterator[None]:
    """Run a master or a worker until the end of the `with` block, after which none of its executors may be left."""
    environment = (f"{name}={value}" for name, value in MACHINE.items())
    command = ["setsid", *UNTIL_WE_END, "env", *environment, str(BIN / "spark-class"), *words]
    with running(command, f"http://{LOOPBACK}:{page}/json/", log) as process:
        try:
            yield
            process.terminate()
            becomes(lambda: left(process.pid), [])
        finally:
            end_group(process)


@pytest.fixture(scope="module")
def cluster(pushgateway_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "events").mkdir()
    port, page, pages = free_port(), free_port(), [free_port(), free_port()]
    master = f"spark://{LOOPBACK}:{port}"
    at = ("--host", LOOPBACK, "--webui-port")

    def workers() -> set[str] | None:
        with urlopen(f"http://{LOOPBACK}:{page}/json/", timeout=10) as answer:
            there = json.load(answer)["workers"]
        alive = {worker["webuiaddress"] for worker in there if worker["state"] == "ALIVE"}
        return alive if len(alive) == 2 else None

    with ExitStack() as all_three:
        words = [f"{DEPLOY}.master.Master", *at, str(page), "--port", str(port)]
        all_three.enter_context(daemon(folder / "master.log", page, *words))
        for number, own_page in enumerate(pages):
            work = folder / f"work{number}"
            words = [f"{DEPLOY}.worker.Worker", *at, str(own_page), "-c", "1", "-m", "1g", "-d", str(work), master]
            all_three.enter_context(daemon(folder / f"{work.name}.log", own_page, *words))
        alive = wait_for("two workers", workers, 60)
        yield Cluster(master, alive, folder, Reader(folder, Stack("", pushgateway_url)))


def packages(ivy: Path) -> list[str]:
    """Give the options that let spark-submit fetch Delta's jars into this folder."""
    coordinates = configure_spark_with_delta_pip(SparkSession.Builder())._options["spark.jars.packages"]
    return ["--packages", coordinates, "--exclude-packages", NOT_DELTA, "--conf", f"spark.jars.ivy={ivy}"]


def test_the_steps_of_the_tutorial(cluster: Cluster) -> None:
    reader = cluster.reader
    assert cluster.submit("create_table.py", *KEPT_JARS) == CREATED
    assert cluster.submit("visits_creator_job.py", *KEPT_JARS) == pushed(reader, "visits_writer_version", 3)
    assert cluster.submit("visits_reader.py", *packages(cluster.folder / "ivy")) == VISITS
    assert cluster.submit("visits_consumer.py", *KEPT_JARS) == VISITS + pushed(reader, "visits_reader_version", 3)
    assert truth.gauges(reader.stack.pushgateway) == {"visits_writer_version": 3, "visits_reader_version": 3}


def test_a_consumer_that_follows_beside_a_writer_without_spark_submit(cluster: Cluster, tmp_path: Path) -> None:
    """Each has one of the two executors; the consumer's Python is asked to stop, and stops Spark."""
    reader, fraud = cluster.reader, "visits_reader_version_fraud"
    defaults = {**cluster.settings, "spark.cores.max": "1"}
    del defaults["spark.master"]
    (tmp_path / "spark-defaults.conf").write_text("".join(f"{name} {value}\n" for name, value in defaults.items()))

    def versions() -> tuple[float | None, ...]:
        there = truth.gauges(reader.stack.pushgateway)
        return tuple(there.get(job) for job in ("visits_writer_version", "visits_reader_version", fraud))

    with cluster.submitted(
        "visits_consumer.py --follow", *KEPT_JARS, "--conf", "spark.cores.max=1", VISITS_CONSUMER="fraud"
    ) as consumer:
        becomes(versions, (3, 3, 3), LIMIT)
        written = reader.succeed(
            "visits_creator_job.py", SPARK_MASTER=cluster.master, SPARK_CONF_DIR=str(tmp_path), **MACHINE
        )
        assert written == pushed(reader, "visits_writer_version", 6)
        becomes(versions, (6, 3, 6), LIMIT)
        (python,) = [one for one in psutil.Process(consumer.pid).children() if one.name().startswith("python")]
        python.terminate()
        printed = cluster.finish(consumer)
    assert printed[-1] + "\n" == pushed(reader, fraud, 6)
    assert sum(line.startswith("|visit ") for line in printed) == 18


class App(NamedTuple):
    """What an application on the cluster noted of itself."""

    name: str
    told: dict[str, str]  # its settings
    ran_on: set[str]  # the pages of the workers whose executors ran its tasks

    @classmethod
    def from_events(cls, file: Path) -> "App":
        events: dict[str, list[dict[str, Any]]] = {}
        for line in file.read_text().splitlines():
            event = json.loads(line)
            events.setdefault(event["Event"].removeprefix("SparkListener"), []).append(event)
        pages = {
            event["Executor ID"]: event["Executor Info"]["Log Urls"]["stdout"].partition("/logPage")[0]
            for event in events["ExecutorAdded"]
        }
        told = dict(events["EnvironmentUpdate"][0]["Spark Properties"])
        ran_on = {pages[event["Task Info"]["Executor ID"]] for event in events.get("TaskEnd", [])}
        return cls(told["spark.app.name"], told, ran_on)


@pytest.fixture(scope="module")
def apps(cluster: Cluster) -> list[App]:
    """What the tests before have run, in the order of their starts."""
    return [App.from_events(file) for file in sorted((cluster.folder / "events").iterdir())]


def test_the_workers_did_the_work(cluster: Cluster, apps: list[App]) -> None:
    story = ["create_table", "visits_creator_job", "visits_reader", "visits_consumer"]
    assert [app.name for app in apps] == [*story, "visits_consumer", "visits_creator_job"]
    assert [len(app.ran_on) for app in apps[4:]] == [1, 1]
    assert [app.name for app in apps if not app.ran_on] == []
    assert set().union(*(app.ran_on for app in apps[:4])) == cluster.workers


def test_nothing_that_is_for_one_machine_went_along(cluster: Cluster, apps: list[App]) -> None:
    ours = SETTINGS | SHORT_RUN
    java = (*JAVA_OPTIONS, ONE_COMPILER, "SharedArchiveFile")
    for app in apps:
        assert [name for name, value in ours.items() if app.told.get(name) == value] == [], app.name
        assert "spark.driver.extraClassPath" not in app.told
        options = " ".join(value for name, value in app.told.items() if name.endswith("JavaOptions"))
        assert [option for option in java if option in options] == [], app.name
    started = [file.read_text().splitlines()[0] for file in cluster.folder.glob("work*/app-*/*/stderr")]
    assert len(started) >= 10  # executors: two for each of the four steps, and one for each of the two beside
    assert [line for line in started if not line.startswith("Spark Executor Command: ")] == []
    assert [option for option in java for line in started if option in line] == []


def test_nothing_was_left_where_the_scripts_were_started(cluster: Cluster) -> None:
    assert list(cluster.reader.desk.iterdir()) == []
