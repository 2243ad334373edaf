"""The fixtures: a monitoring stack, a Spark session, and a workspace to run the scripts in."""

from collections.abc import Iterator
from pathlib import Path

from tutorial.session import delta_session

from demo.stack import COMPRESSED, Stack, free_port, local_stack, pushgateway
from tests.lake import Lake
from tests.steps import Steps
from tests.workspace import Workspace

import pytest
from pyspark.sql import SparkSession


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--histories", type=int, default=6, help="how many random histories of a table to run")
    parser.addoption("--kills", type=int, default=4, help="how many scripts to kill at random")
    parser.addoption("--seed", type=int, default=1, help="the seed of the random choices")


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A Pushgateway and a Prometheus, with compressed times."""
    with local_stack(tmp_path_factory.mktemp("stack"), COMPRESSED) as running:
        yield running


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """One session for the tests with many cases. Each script starts its own."""
    with delta_session("tests", str(tmp_path_factory.mktemp("spark"))) as session:
        # VACUUM lists the table's files in as many tasks. The default of 10,000 takes 22 s for a few files.
        session.conf.set("spark.sql.sources.parallelPartitionDiscovery.parallelism", "2")
        yield session


@pytest.fixture(scope="module")
def pushgateway_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Pushgateway for one module's tests."""
    with pushgateway(tmp_path_factory.mktemp("pushgateway"), free_port()) as address:
        yield address


@pytest.fixture
def workspace(stack: Stack, tmp_path: Path) -> Workspace:
    """A workspace for one test."""
    return Workspace(tmp_path, stack)


@pytest.fixture(scope="module")
def shared_workspace(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace for the tests of a module, which run one after the other."""
    return Workspace(tmp_path_factory.mktemp("workspace"), stack)


@pytest.fixture
def lake(spark: SparkSession, tmp_path: Path) -> Lake:
    """A folder with tables of any kind."""
    return Lake(spark, tmp_path)


@pytest.fixture(scope="module")
def table_read_to_3(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A warehouse to copy: the table is at version 3, and the consumer has read it."""
    warehouse = tmp_path_factory.mktemp("ready made") / "warehouse"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VISITS_WAREHOUSE", str(warehouse))
        steps = Steps(spark, warehouse)
        steps.create()
        steps.write()
        assert steps.consume() == 3
    return warehouse
