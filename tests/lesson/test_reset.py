"""What `create_table.py` and `make reset` delete, and that they leave alone what is not the tutorial's own."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from tutorial.files import WarehousePath
from tutorial.reset import start_over
from tutorial.visits import READER_VERSION, WRITER_VERSION

from demo.stack import ROOT
from lag_detector import Pushgateway
from tests.helpers import disk_truth as truth
from tests.helpers.lesson_steps import NoGateway, Steps, Warehouses
from tests.helpers.workspace import SessionWorkspace, Workspace

import pytest
from pyspark.sql import SparkSession

COMMANDS = ["create_table.py", "tutorial/reset.py"]
COLUMNS = "visit_id STRING NOT NULL, event_time TIMESTAMP NOT NULL, user_id STRING NOT NULL, page STRING NOT NULL"
OTHERS = [
    "checkpoints/billing/offsets/7",
    "checkpoints/visits_consumer.old/metadata",
    "checkpoints/visits_consumer_Fraud/metadata",
    "checkpoints/visits_consumers/metadata",
    "orders/_delta_log/00000000000000000000.json",
    "visits_2023/part-0.parquet",
]


def add(warehouse: Path, *files: str) -> None:
    for file in files:
        (warehouse / file).parent.mkdir(parents=True, exist_ok=True)
        (warehouse / file).write_text("mine")


def files_in(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


@pytest.fixture
def workspace_with_gauges(session_workspace: SessionWorkspace) -> SessionWorkspace:
    for metric in (WRITER_VERSION, READER_VERSION):
        Pushgateway(session_workspace.stack.pushgateway).push(metric, 3)
    return session_workspace


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("with_table", [True, False])
def test_starting_over_in_a_lake_deletes_only_what_is_the_tutorials(
    command: str, with_table: bool, workspace_with_gauges: SessionWorkspace, warehouses: Warehouses
) -> None:
    workspace = workspace_with_gauges
    if with_table:
        shutil.copytree(warehouses.at_6_read_to_3, workspace.warehouse)
    add(workspace.warehouse, *OTHERS, "checkpoints/visits_consumer_fraud/metadata", "checkpoints/visits_consumer/x")
    workspace.succeed(command)
    assert truth.gauges(workspace.stack.pushgateway) == {}
    if command == "create_table.py":
        assert truth.Disk(workspace.warehouse).versions() == [0]
        shutil.rmtree(workspace.warehouse / "visits")
    assert files_in(workspace.warehouse) == OTHERS


OTHER_TABLES = {
    "with-another-column": f"{COLUMNS}, country STRING",
    "with-fewer-columns": "visit_id STRING NOT NULL",
    "with-another-type": COLUMNS.replace("TIMESTAMP", "STRING"),
    "with-nullable-columns": COLUMNS.replace(" NOT NULL", ""),
    "with-another-order": ", ".join(reversed(COLUMNS.split(", "))),
}


@pytest.fixture(params=[*OTHER_TABLES, "without-log", "with-a-checkpoint-inside", "with-unreadable-log", "a-file"])
def lake_of_others(
    request: pytest.FixtureRequest, workspace_with_gauges: SessionWorkspace, warehouses: Warehouses, spark: SparkSession
) -> SessionWorkspace:
    """Something of others in the place of the tutorial's table."""
    workspace, kind = workspace_with_gauges, request.param
    visits = workspace.warehouse / "visits"
    add(workspace.warehouse, *OTHERS, "checkpoints/visits_consumer/metadata")
    if columns := OTHER_TABLES.get(kind):
        spark.sql(f"CREATE TABLE delta.`{visits}` ({columns}) USING DELTA")
    elif kind == "without-log":
        add(visits, "thesis.txt")
    elif kind == "a-file":
        visits.write_text("mine")
    else:
        shutil.copytree(warehouses.at_3 / "visits", visits)
        if kind == "with-a-checkpoint-inside":
            add(visits, "_checkpoints/fraud/offsets/0")
        else:
            for file in (visits / "_delta_log").rglob("*.*"):
                file.write_text('"garbage"')
    return workspace


def test_starting_over_in_place_of_others_deletes_nothing(lake_of_others: SessionWorkspace) -> None:
    before, gauges = files_in(lake_of_others.warehouse), truth.gauges(lake_of_others.stack.pushgateway)
    assert len(gauges) == 2
    for command in COMMANDS:
        message = lake_of_others.fail(command)
        assert f"{lake_of_others.warehouse}/visits" in message
        assert "it was left alone; set VISITS_WAREHOUSE to another folder" in message
    assert files_in(lake_of_others.warehouse) == before
    assert truth.gauges(lake_of_others.stack.pushgateway) == gauges


@pytest.mark.parametrize("columns", [OTHER_TABLES["with-nullable-columns"], OTHER_TABLES["with-another-type"]])
def test_writer_adds_nothing_to_the_table_of_others(
    columns: str, session_workspace: SessionWorkspace, spark: SparkSession
) -> None:
    visits = session_workspace.warehouse / "visits"
    spark.sql(f"CREATE TABLE delta.`{visits}` ({columns}) USING DELTA")
    assert "holds another table" in session_workspace.fail("visits_creator_job.py")
    assert truth.Disk(session_workspace.warehouse).versions() == [0]


def test_reader_of_the_table_of_others_says_so(session_workspace: SessionWorkspace, spark: SparkSession) -> None:
    spark.sql(f"CREATE TABLE delta.`{session_workspace.warehouse / 'visits'}` (id INT) USING DELTA")
    for script in ("visits_reader.py", "visits_consumer.py"):
        done = session_workspace.run(script)
        assert (done.returncode, done.stdout) == (1, "")
        assert "holds another table" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("shows_columns", ["0.json", "6.crc"])
def test_starting_over_when_interrupted_anywhere_is_completed_by_the_next_run(
    shows_columns: str, spark: SparkSession, warehouses: Warehouses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    delete, left = WarehousePath.delete, 0
    monkeypatch.setenv("VISITS_WAREHOUSE", str(tmp_path / "lake"))

    def delete_some(path: WarehousePath) -> None:
        nonlocal left
        if not left:
            raise KeyboardInterrupt
        left -= 1
        delete(path)

    interrupted = 0
    while True:
        shutil.copytree(warehouses.at_6_read_to_3, tmp_path / "lake")
        log = truth.Disk(tmp_path / "lake").log
        for file in [*log.glob("0*.crc"), log / f"{0:020d}.json"]:
            if not file.name.endswith(shows_columns):
                file.unlink()
        left = interrupted
        monkeypatch.setattr(WarehousePath, "delete", delete_some)
        try:
            start_over(spark, NoGateway())
            break
        except KeyboardInterrupt:
            interrupted += 1
        monkeypatch.setattr(WarehousePath, "delete", delete)
        start_over(spark, NoGateway())
        assert files_in(tmp_path / "lake") == []
        shutil.rmtree(tmp_path / "lake")
    assert interrupted > 10


@pytest.fixture
def reset(workspace: Workspace) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A function that runs `make reset`."""

    def run(**settings: str) -> subprocess.CompletedProcess[str]:
        ours = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
        environment = {**ours, **workspace.settings(settings)}
        command = ["make", "reset"]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)

    return run


def test_make_reset_when_gateway_is_down_says_so_and_goes_on(
    reset: Callable[..., subprocess.CompletedProcess[str]],
    workspace: Workspace,
    warehouses: Warehouses,
    closed_port: int,
) -> None:
    workspace.copy(warehouses.read_to_3)
    add(workspace.warehouse, *OTHERS)
    done = reset(PUSHGATEWAY_URL=f"http://127.0.0.1:{closed_port}")
    assert done.returncode == 0
    assert done.stdout == f"{workspace.warehouse} has no table and no checkpoints of the tutorial.\n"
    assert f"Warning: the Pushgateway at http://127.0.0.1:{closed_port} cannot be reached" in done.stderr
    assert files_in(workspace.warehouse) == OTHERS


def test_steps_in_another_file_system_keep_what_others_have_there(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a file system that only Hadoop knows."""
    hadoop = spark.sparkContext._jsc.hadoopConfiguration()
    hadoop.set("fs.viewfs.mounttable.lake.link./warehouse", tmp_path.as_uri())
    monkeypatch.setenv("VISITS_WAREHOUSE", "viewfs://lake/warehouse")
    add(tmp_path, *OTHERS)
    steps = Steps(spark, tmp_path)
    for _ in range(2):
        steps.create()
        assert steps.disk.versions() == [0]
        steps.write()
        assert steps.consume() == 3
    start_over(spark, NoGateway())
    assert files_in(tmp_path) == OTHERS
