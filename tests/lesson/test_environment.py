"""What other programs leave in the environment: the scripts work all the same, or name the variable."""

import os
import re
import socket
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

from tutorial.settings import spark_master

from demo.stack import ROOT
from tests.helpers.lesson_steps import Warehouses
from tests.helpers.workspace import WITHOUT_ROOT, SessionWorkspace, Workspace

import pytest

IN_A_LIVE_SESSION = """
import os, subprocess, sys
from pyspark import SparkConf, SparkContext
context = SparkContext(conf=SparkConf().setMaster("local[1]").set("spark.ui.enabled", "false"))
gateway = context._gateway.gateway_parameters
inherited = {"PYSPARK_GATEWAY_PORT": str(gateway.port), "PYSPARK_GATEWAY_SECRET": gateway.auth_token}
sys.exit(subprocess.run([sys.executable, sys.argv[1]], env={**os.environ, **inherited}).returncode)
"""


@pytest.mark.parametrize(
    ("defaults", "submit_args", "expected"),
    [
        ("# spark.master  spark://master:7077\n", "", None),
        ("spark.app.name uses spark.master spark://master:7077\n", "", None),
        ("spark.master  spark://a:7077\nspark.master=spark://b:7077\n", "", "spark://b:7077"),
        ("  spark.master: spark://a:7077\n", "", "spark://a:7077"),
        ("spark.master spark://a:7077\n", "--master local[3] pyspark-shell", "local[3]"),
        ("", "--conf spark.master=local[2] --name 'a b' pyspark-shell", "local[2]"),
    ],
)
def test_spark_master_in_configuration_is_parsed_as_spark_does(
    defaults: str, submit_args: str, expected: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SPARK_MASTER", "MASTER", "SPARK_CONF_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYSPARK_SUBMIT_ARGS", submit_args)
    (tmp_path / "spark-defaults.conf").write_text(defaults)
    assert spark_master(tmp_path) == expected


def test_script_with_leftover_gateway_port_names_it(workspace: Workspace, closed_port: int) -> None:
    for port in (str(closed_port), "x", "99999999"):
        message = workspace.fail("visits_reader.py", PYSPARK_GATEWAY_PORT=port, PYSPARK_GATEWAY_SECRET="secret")
        assert "unset PYSPARK_GATEWAY_PORT and PYSPARK_GATEWAY_SECRET" in message
        assert "run it again" not in message


@pytest.mark.slow
def test_script_as_child_of_live_session_names_the_variable(workspace: Workspace) -> None:
    (workspace.folder / "parent.py").write_text(IN_A_LIVE_SESSION)
    done = workspace.run(f"{workspace.folder / 'parent.py'} {ROOT / 'visits_reader.py'}")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "Error: PYSPARK_GATEWAY_PORT is inherited from a program with a Spark session of its own; unset "
        "PYSPARK_GATEWAY_PORT and PYSPARK_GATEWAY_SECRET."
    )


def test_script_with_spark_connect_selected_names_the_variable(workspace: Workspace) -> None:
    message = workspace.fail("visits_reader.py", SPARK_REMOTE="sc://localhost:15002")
    assert message.endswith("unset SPARK_REMOTE.")


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="another host name needs root")
def test_script_on_host_without_resolvable_name_succeeds(workspace: Workspace) -> None:
    name = "no-such-host"
    with pytest.raises(OSError, match=r"[Nn]ame"):
        socket.getaddrinfo(name, None)
    prefix = ("unshare", "--uts", "sh", "-c", f'hostname {name} && exec "$@"', "sh")
    workspace.succeed("create_table.py", prefix=prefix)


@pytest.mark.skipif(os.geteuid() != 0, reason="another user needs root")
def test_script_of_user_without_name_says_so(workspace: Workspace) -> None:
    """With the system's Python, since that user may not enter everybody's home."""
    packages = str(distribution("pyspark").locate_file(""))
    workspace.folder.chmod(0o777)
    for folder in workspace.folder.parents:
        if folder.stat().st_uid == os.geteuid() and str(folder) not in ("/", "/tmp"):
            folder.chmod(folder.stat().st_mode | 0o055)
    done = subprocess.run(
        ["setpriv", "--reuid=54321", "--clear-groups", "/usr/bin/python3", "-B", str(ROOT / "create_table.py")],
        cwd="/",
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": packages,
            "PUSHGATEWAY_URL": workspace.stack.pushgateway,
            "VISITS_WAREHOUSE": str(workspace.warehouse),
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done
    assert done.stderr.splitlines()[-1] == (
        "Error: Spark needs a user with a name, and this user id has none; add a line for it to /etc/passwd, or run as "
        "another user."
    )


@pytest.mark.slow
def test_consumer_with_unwritable_checkpoint_keeps_it(
    workspace: Workspace, session_workspace: SessionWorkspace, warehouses: Warehouses
) -> None:
    """As after a run by another user."""
    workspace.copy(warehouses.at_6_read_to_3)
    folders = [path for path in (workspace.warehouse / "checkpoints").rglob("*") if path.is_dir()]
    for folder in folders:
        folder.chmod(0o555)
    message = workspace.fail("visits_consumer.py", prefix=WITHOUT_ROOT)
    assert "cannot be written by this user" in message
    assert "mv " not in message
    for folder in folders:
        folder.chmod(0o755)
    assert session_workspace.succeed("visits_consumer.py").count("|visit ") == 9


@pytest.mark.parametrize("options", ["-Xmx1x", "-XX:+UseSerialGC -XX:+UseParallelGC"])
def test_java_with_wrong_options_shows_what_it_says(workspace: Workspace, options: str) -> None:
    message = workspace.fail("visits_reader.py", JAVA_TOOL_OPTIONS=options)
    assert re.search("Invalid maximum heap size: -Xmx1x|Conflicting collector|[Mm]ultiple garbage collectors", message)


@pytest.mark.launcher
def test_spark_with_wrong_arguments_shows_first_cause(workspace: Workspace) -> None:
    message = workspace.fail("visits_reader.py", PYSPARK_SUBMIT_ARGS="--no-such-option pyspark-shell")
    assert "Unrecognized option: --no-such-option" in message


def test_script_with_safe_path_finds_its_modules(workspace: Workspace) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "visits_consumer.py"), "--help"],
        cwd=workspace.working_directory,
        env={**os.environ, "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
