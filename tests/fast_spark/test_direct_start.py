"""Java is started without Spark's launcher, unless something is set that only the launcher reads."""

import json
import os
import signal
import subprocess
import sys
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
from tests.helpers.workspace import Workspace

import pytest
from pyspark.errors import PySparkRuntimeError

LOG_TO_STDOUT = """
rootLogger.level = info
rootLogger.appenderRef.stdout.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.target = SYSTEM_OUT
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d %p %m%n
"""
INSPECT = """
import json
import os
import sys

from fast_spark.session import delta_session

with delta_session("inspect", sys.argv[1]) as spark:
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
    done = subprocess.run(
        [sys.executable, str(script), str(workspace.warehouse)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **settings},
        cwd=workspace.working_directory,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["rows"] == 10
    assert found["by_python_worker"] == 6
    assert found["inherited"] == []
    return found


def is_direct(found: Any) -> bool:
    return launch.GATEWAY_SERVER in found["java"]


@pytest.mark.launcher
@pytest.mark.slow
def test_session_without_settings_starts_java_directly_as_the_launcher_would(workspace: Workspace) -> None:
    found = inspect(workspace, JAVA_TOOL_OPTIONS="-Dcompany=yes")
    assert is_direct(found)
    assert found["property"] == "yes"
    launched = inspect(workspace, PYSPARK_SUBMIT_ARGS="pyspark-shell")
    assert not is_direct(launched)
    ours, theirs = (set(each["java"]) for each in (found, launched))
    only_theirs = {option for option in theirs - ours if option.startswith("-") and not option.startswith("--conf")}
    assert only_theirs == {"--add-modules=jdk.incubator.vector", "-Dderby.connection.requireAuthentication=false"}
    expected = {"spark.master": "local[*]", **local_settings(short_run=True)}
    assert {name: found["conf"][name] for name in expected} == expected
    assert {name: launched["conf"][name] for name in expected} == expected
    assert found["conf"]["spark.sql.extensions"] == launched["conf"]["spark.sql.extensions"]
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
    assert not is_direct(found)
    assert found["megabytes"] > 1400
    assert found["property"] == "yes"
    assert "/opt/jdbc/x.jar" in found["class_path"]
    expected = {"spark.company.setting": "here", "spark.master": "local[1]", **local_settings(short_run=True)}
    assert {name: found["conf"][name] for name in expected} == expected


@pytest.mark.parametrize(
    ("variables", "files", "expected"),
    [
        ({}, (), False),
        ({"SPARK_MASTER": "local[1]", "SPARK_LOCAL_DIRS": "/x", "SPARK_HOME": "/x"}, (), False),
        ({"SPARK_DRIVER_MEMORY": ""}, (), False),
        ({"SPARK_AUTH_SOCKET_TIMEOUT": "15", "SPARK_BUFFER_SIZE": "65536"}, (), False),
        ({}, ("spark-defaults.conf.template", ".hidden"), False),
        ({"SPARK_DRIVER_MEMORY": "2g"}, (), True),
        ({"SPARK_CONF_DIR": "/x"}, (), True),
        ({"SPARK_SUBMIT_OPTS": "-Dx"}, (), True),
        ({"PYSPARK_SUBMIT_ARGS": "pyspark-shell"}, (), True),
        ({"HADOOP_CONF_DIR": "/x"}, (), True),
        ({}, ("spark-defaults.conf",), True),
        ({}, ("spark-env.sh",), True),
        ({}, ("log4j2.properties",), True),
    ],
)
def test_spark_is_configured_by_variables_and_files(
    variables: dict[str, str], files: tuple[str, ...], expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith(("SPARK_", "PYSPARK_", "HADOOP_", "YARN_"))]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for file in files:
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


def test_start_java_that_ends_raises(tmp_path: Path) -> None:
    with pytest.raises(PySparkRuntimeError, match="JAVA_GATEWAY_EXITED"):
        launch_directly(fake_java(tmp_path, "exit 1"), [], [], None)


def test_start_java_without_execute_bits_names_it(tmp_path: Path) -> None:
    java = fake_java(tmp_path, "exit 1")
    Path(java.program).chmod(0o644)
    with pytest.raises(SparkStartError, match=f"Java at {java.program} does not start .Permission denied.; install"):
        launch_directly(java, [], [], None)
