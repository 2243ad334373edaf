"""Java is started without Spark's launcher, unless something is set that only the launcher reads."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from demo.stack import ROOT
from fast_spark import launch
from fast_spark.environment import spark_is_configured
from fast_spark.errors import SparkStartError
from fast_spark.java import Java
from fast_spark.launch import launch_directly
from fast_spark.tuning import local_settings
from tests.helpers.running_streams import V2_MODE
from tests.helpers.workspace import Workspace

import pytest
from pyspark.errors import PySparkRuntimeError

LOG_TO_STDOUT = """
rootLogger.level = info
rootLogger.appenderRef.stdout.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.target = SYSTEM_OUT
"""
INSPECT = """
import json
import os
import sys

from fast_spark.session import delta_session

with delta_session("inspect", sys.argv[1], read_only=True) as spark:
    spark.range(10).write.format("delta").mode("overwrite").save(f"{sys.argv[1]}/numbers")
    java = spark.sparkContext._gateway.proc
    print(json.dumps({
        "java": open(f"/proc/{java.pid}/cmdline").read().split("\\0"),
        "megabytes": spark._jvm.Runtime.getRuntime().maxMemory() // 2**20,
        "property": spark._jvm.System.getProperty("company"),
        "class_path": spark._jvm.System.getProperty("java.class.path").split(":"),
        "conf": dict(spark.sparkContext.getConf().getAll()),
        "inherited": [name for name in os.environ if name.startswith("PYSPARK_GATEWAY")],
        "by_python_worker": spark.sparkContext.parallelize([1, 2]).map(lambda number: 2 * number).sum(),
        "rows": spark.read.format("delta").load(f"{sys.argv[1]}/numbers").count(),
    }))
"""


def inspect(workspace: Workspace, **settings: str) -> Any:
    """Run a session with these environment variables, and return what it is made of."""
    script = workspace.folder / "inspect_session.py"
    script.write_text(INSPECT)
    found = json.loads(workspace.succeed(f"{script} {workspace.warehouse}", PYTHONPATH=str(ROOT), **settings))
    assert (found["rows"], found["by_python_worker"], found["inherited"]) == (10, 6, [])
    expected = local_settings(short_run=True, read_only=True)
    assert {name: found["conf"][name] for name in expected} == expected
    found["direct"] = launch.GATEWAY_SERVER in found["java"]
    return found


def test_only_short_runs_that_only_read_use_dsv2() -> None:
    added = local_settings(short_run=True, read_only=True).items() - local_settings(short_run=True).items()
    assert added == {(V2_MODE, "STRICT")}
    assert local_settings(short_run=False, read_only=True) == local_settings(short_run=False)


@pytest.mark.launcher
@pytest.mark.slow
def test_session_without_settings_starts_java_directly_as_the_launcher_would(workspace: Workspace) -> None:
    found = inspect(workspace, JAVA_TOOL_OPTIONS="-Dcompany=yes")
    launched = inspect(workspace, PYSPARK_SUBMIT_ARGS="pyspark-shell")
    assert (found["direct"], launched["direct"]) == (True, False)
    assert found["property"] == "yes"
    only_launched = {option for option in {*launched["java"]} - {*found["java"]} if option.startswith("-")} - {"--conf"}
    assert only_launched == {"--add-modules=jdk.incubator.vector", "-Dderby.connection.requireAuthentication=false"}
    for name in ("spark.master", "spark.sql.extensions"):
        assert found["conf"][name] == launched["conf"][name]
    assert found["conf"]["spark.master"] == "local[*]"
    assert found["megabytes"] == launched["megabytes"]


@pytest.mark.launcher
@pytest.mark.slow
def test_session_with_class_path_and_configuration_of_others_keeps_them(workspace: Workspace) -> None:
    """A notebook's submit arguments, a company's log4j and spark-defaults; logs must not come among the rows."""
    (workspace.folder / "log4j2.properties").write_text(LOG_TO_STDOUT)
    (workspace.folder / "spark-defaults.conf").write_text(
        "spark.driver.extraClassPath /x.jar\nspark.driver.extraJavaOptions -Dcompany=yes\nspark.company.setting here\n"
    )
    found = inspect(
        workspace,
        SPARK_CONF_DIR=str(workspace.folder),
        SPARK_DRIVER_MEMORY="1500m",
        SPARK_MASTER="local[1]",
        PYSPARK_SUBMIT_ARGS="--driver-class-path /opt/jdbc/x.jar pyspark-shell",
    )
    assert not found["direct"]
    assert found["megabytes"] > 1400
    assert found["property"] == "yes"
    assert "/opt/jdbc/x.jar" in found["class_path"]
    assert (found["conf"]["spark.company.setting"], found["conf"]["spark.master"]) == ("here", "local[1]")


@pytest.mark.slow
def test_script_with_own_java_options_prints_no_warning(workspace: Workspace) -> None:
    """Another garbage collector and heap size, as a company may set them for all its Java programs."""
    workspace.succeed("create_table.py", JDK_JAVA_OPTIONS="-XX:+UseParallelGC", _JAVA_OPTIONS="-Xmx800m")


@pytest.mark.parametrize(
    ("variables", "file", "expected"),
    [
        ({}, "", False),
        ({"SPARK_MASTER": "local[1]", "SPARK_LOCAL_DIRS": "/x", "SPARK_HOME": "/x"}, "", False),
        ({"SPARK_DRIVER_MEMORY": ""}, "", False),
        ({"SPARK_AUTH_SOCKET_TIMEOUT": "15", "SPARK_BUFFER_SIZE": "65536"}, "", False),
        ({}, "spark-defaults.conf.template", False),
        ({}, ".hidden", False),
        *(({name: "x"}, "", True) for name in ("SPARK_DRIVER_MEMORY", "SPARK_CONF_DIR", "SPARK_SUBMIT_OPTS")),
        *(({name: "x"}, "", True) for name in ("PYSPARK_SUBMIT_ARGS", "HADOOP_CONF_DIR")),
        *(({}, name, True) for name in ("spark-defaults.conf", "spark-env.sh", "log4j2.properties")),
    ],
)
def test_spark_is_configured_by_variables_and_files(
    variables: dict[str, str], file: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith(("SPARK_", "PYSPARK_", "HADOOP_", "YARN_"))]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if file:
        (tmp_path / file).touch()
    assert spark_is_configured(tmp_path) is expected


def fake_java(folder: Path, code: str) -> Java:
    program = folder / "java"
    program.write_text(f"#!/bin/sh\n{code}\n")
    program.chmod(0o755)
    return Java(str(program), 17, "fake")


def test_start_java_that_never_answers_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "START_LIMIT", 0.5)
    java = fake_java(tmp_path, f"echo $$ > {tmp_path}/pid; exec /bin/sleep 60")
    begin = time.monotonic()
    with pytest.raises(SparkStartError, match="Java did not start within 0 seconds; install Java"):
        launch_directly(java, [], [], None)
    assert time.monotonic() - begin < 10
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


def test_start_java_on_ctrl_c_meanwhile_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def start_and_press_ctrl_c(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(*arguments, **options))
        os.kill(os.getpid(), signal.SIGINT)
        return started[0]

    monkeypatch.setattr(launch, "Popen", start_and_press_ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        launch_directly(fake_java(tmp_path, "exec /bin/sleep 60"), [], [], None)
    assert started[0].returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("mode", "error", "message"),
    [
        (0o755, PySparkRuntimeError, "JAVA_GATEWAY_EXITED"),
        (0o644, SparkStartError, "Java at {program} does not start .Permission denied.; install"),
    ],
)
def test_start_java_that_ends_or_cannot_be_executed_raises(
    mode: int, error: type[Exception], message: str, tmp_path: Path
) -> None:
    java = fake_java(tmp_path, "exit 1")
    Path(java.program).chmod(mode)
    with pytest.raises(error, match=message.format(program=java.program)):
        launch_directly(java, [], [], None)
