"""What `create_table.py` and `make reset` delete, and that they leave alone what is not the tutorial's own."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

from tutorial.files import WarehousePath
from tutorial.reset import start_over
from tutorial.visits import READER_VERSION, WRITER_VERSION

from demo.stack import ROOT
from lag_detector import Pushgateway
from tests.helpers.disk_truth import Disk
from tests.helpers.lesson_steps import NoGateway, Steps
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
    command: str, with_table: bool, workspace_with_gauges: SessionWorkspace, warehouses: Path
) -> None:
    workspace = workspace_with_gauges
    if with_table:
        shutil.copytree(warehouses / "at_6_read_to_3", workspace.warehouse)
    add(workspace.warehouse, *OTHERS, "checkpoints/visits_consumer_fraud/metadata", "checkpoints/visits_consumer/x")
    workspace.succeed(command)
    assert workspace.gauges() == {}
    if command == "create_table.py":
        assert workspace.disk.versions() == [0]
        shutil.rmtree(workspace.warehouse / "visits")
    assert files_in(workspace.warehouse) == OTHERS


OTHER_TABLES = {
    "with-another-column": f"{COLUMNS}, country STRING",
    "with-fewer-columns": "visit_id STRING NOT NULL",
    "with-another-type": COLUMNS.replace("TIMESTAMP", "STRING"),
    "with-nullable-columns": COLUMNS.replace(" NOT NULL", ""),
    "with-another-order": ", ".join(reversed(COLUMNS.split(", "))),
}


@pytest.mark.parametrize(
    "kind", [*OTHER_TABLES, "without-log", "with-a-checkpoint-inside", "with-unreadable-log", "a-file"]
)
def test_starting_over_and_writing_in_place_of_others_change_nothing(
    kind: str, workspace_with_gauges: SessionWorkspace, warehouses: Path, spark: SparkSession
) -> None:
    workspace, visits = workspace_with_gauges, workspace_with_gauges.warehouse / "visits"
    add(workspace.warehouse, *OTHERS, "checkpoints/visits_consumer/metadata")
    if kind in OTHER_TABLES:
        spark.sql(f"CREATE TABLE delta.`{visits}` ({OTHER_TABLES[kind]}) USING DELTA")
    elif kind == "without-log":
        add(visits, "thesis.txt")
    elif kind == "a-file":
        visits.write_text("mine")
    else:
        shutil.copytree(warehouses / "at_3" / "visits", visits)
        if kind == "with-a-checkpoint-inside":
            add(visits, "_checkpoints/fraud/offsets/0")
        else:
            for file in (visits / "_delta_log").rglob("*.*"):
                file.write_text('"garbage"' if file.suffix == ".crc" else "garbage {")
    before = files_in(workspace.warehouse)
    for command in [*COMMANDS, *(["visits_creator_job.py"] if kind in OTHER_TABLES else [])]:
        message = workspace.fail(command)
        assert str(visits) in message
        assert ("is not a Delta table" in message) is (kind in ("without-log", "a-file"))
        assert "it was left alone; set VISITS_WAREHOUSE to another folder" in message
    assert files_in(workspace.warehouse) == before
    assert workspace.gauges() == {WRITER_VERSION: 3, READER_VERSION: 3}


def test_reader_of_the_table_of_others_says_so(session_workspace: SessionWorkspace, spark: SparkSession) -> None:
    spark.sql(f"CREATE TABLE delta.`{session_workspace.warehouse / 'visits'}` (id INT) USING DELTA")
    for script in ("visits_reader.py", "visits_consumer.py"):
        done = session_workspace.run(script)
        assert (done.returncode, done.stdout) == (1, "")
        assert "holds another table" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("shows_columns", ["0.json", "6.crc"])
def test_starting_over_when_interrupted_anywhere_is_completed_by_the_next_run(
    shows_columns: str, spark: SparkSession, warehouses: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, delete = tmp_path / "lake", WarehousePath.delete
    monkeypatch.setenv("VISITS_WAREHOUSE", str(lake))
    for deletions in count():
        shutil.copytree(warehouses / "at_6_read_to_3", lake)
        log = Disk(lake).log
        for file in [*log.glob("0*.crc"), log / f"{0:020d}.json"]:
            if not file.name.endswith(shows_columns):
                file.unlink()
        left = iter(range(deletions))

        def delete_some(path: WarehousePath, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt
            delete(path)

        with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
            patch.setattr(WarehousePath, "delete", delete_some)
            start_over(spark, NoGateway())
            break
        start_over(spark, NoGateway())
        assert files_in(lake) == []
        shutil.rmtree(lake)
    assert deletions > 10


def test_make_reset_when_gateway_is_down_says_so_and_goes_on(
    workspace: Workspace, warehouses: Path, closed_port: int
) -> None:
    workspace.copy(warehouses / "read_to_3")
    add(workspace.warehouse, *OTHERS)
    outside_make = {"MAKEFLAGS": "", "MAKELEVEL": "", "MFLAGS": ""}
    settings = workspace.settings({"PUSHGATEWAY_URL": f"http://127.0.0.1:{closed_port}"})
    environment = {**os.environ, **outside_make, **settings}
    done = subprocess.run(["make", "reset"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert done.stdout == f"{workspace.warehouse} has no table and no checkpoints of the tutorial.\n"
    assert f"Warning: the Pushgateway at http://127.0.0.1:{closed_port} cannot be reached" in done.stderr
    assert files_in(workspace.warehouse) == OTHERS


ODD_NAME = 'with space, it\'s "a" `tick` 100% %20 a#b k=v naïve 店 a;b,c [x] {y} a&b a?*'
FORMS = ["link", ODD_NAME, "viewfs://lake/warehouse", "{}", "file:{}", "{}/", "file://{}/"]


@pytest.mark.parametrize("form", [pytest.param(form, marks=pytest.mark.slow if "{}" in form else ()) for form in FORMS])
def test_steps_with_any_form_of_warehouse_keep_what_others_have_there(
    form: str, spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Absolute, a link, relative to the working directory, a URI, and in a file system that only Hadoop knows."""
    folder = tmp_path / ("lake" if form.startswith("viewfs") else ODD_NAME)
    if form == "link":
        (tmp_path / "target").mkdir()
        folder.symlink_to(tmp_path / "target")
    hadoop = spark.sparkContext._jsc.hadoopConfiguration()
    hadoop.set("fs.viewfs.mounttable.lake.link./warehouse", folder.as_uri())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VISITS_WAREHOUSE", form.replace("link", "{}").replace("{}", str(folder)))
    add(folder, *OTHERS)
    steps = Steps(spark, folder)
    for _ in range(2):
        steps.create()
        assert steps.disk.versions() == [0]
        steps.write()
        assert steps.consume() == 3
    start_over(spark, NoGateway())
    assert files_in(folder) == OTHERS
