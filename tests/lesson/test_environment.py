"""What other programs leave in the environment: the scripts work all the same, or name the variable."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

from demo.stack import ROOT
from fast_spark.environment import spark_master
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
    """That user may enter all folders, since the repository may be in one for its owner only."""
    prefix = ("setpriv", "--reuid=54321", "--clear-groups", "--inh-caps=+dac_override", "--ambient-caps=+dac_override")
    assert workspace.fail("create_table.py", prefix=prefix, PYTHONDONTWRITEBYTECODE="1") == (
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


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("JAVA_TOOL_OPTIONS", "-Xmx1x", "Spark did not start: Invalid maximum heap size: -Xmx1x"),
        ("JAVA_TOOL_OPTIONS", "-XX:+UseSerialGC -XX:+UseParallelGC", "[Mm]ultiple garbage collectors|Conflicting"),
        ("JAVA_TOOL_OPTIONS", "-Xms9g", "Spark did not start: Initial heap size set to a larger value than the max"),
        (
            "_JAVA_OPTIONS",
            "-Xmx900000g",
            "Java does not get the memory .*Could not reserve .*; ask for less in SPARK_D",
        ),
        ("SPARK_LOCAL_IP", "nowhere.invalid", "Spark did not start: nowhere.invalid: (Name|Temporary failure)"),
        ("SPARK_LOCAL_DIRS", "/etc/passwd", "cannot write its temporary files in /etc/passwd; set SPARK_LOCAL_DIRS to"),
        pytest.param(
            "PYSPARK_SUBMIT_ARGS",
            "--no-such-option pyspark-shell",
            "Spark did not start: Unrecognized option: --no-such-option",
            marks=pytest.mark.launcher,
        ),
    ],
)
def test_script_when_variable_keeps_spark_from_starting_names_cause(
    variable: str, value: str, expected: str, workspace: Workspace
) -> None:
    message = workspace.fail("visits_reader.py", **{variable: value})
    assert re.search(expected, message)
    assert "to continue" not in message
    if "did not start" in message:
        assert message.endswith(f"; check {variable}, or run again with LAG_DETECTOR_DEBUG=1 to see its log.")


@pytest.mark.launcher
@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "spark.driver.port abc",
            "The value 'abc' in the config \"spark.driver.port\" is invalid.*; check SPARK_CONF_DIR",
        ),
        ("spark.driver.port {port}\nspark.port.maxRetries 0", "Service 'sparkDriver' failed.*; check SPARK_CONF_DIR"),
        ("spark.eventLog.enabled true\nspark.eventLog.dir /no/such", "/no/such does not exist; check SPARK_CONF_DIR"),
        ("spark.plugins com.company.Plugin", "names the class com.company.Plugin, which it does not find; correct it"),
        ("spark.local.dir /etc/passwd", "cannot write its temporary files in /etc/passwd; set SPARK_LOCAL_DIRS to"),
    ],
)
def test_script_when_configuration_keeps_spark_from_starting_names_cause(
    line: str, expected: str, workspace: Workspace, closed_port: int
) -> None:
    (workspace.folder / "spark-defaults.conf").write_text(line.format(port=closed_port))
    message = workspace.fail("visits_reader.py", SPARK_CONF_DIR=str(workspace.folder))
    assert re.search(expected, message)


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
