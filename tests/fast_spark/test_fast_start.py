"""The settings for a fast start: not applied under spark-submit, and harmless next to a user's own Java options."""

import os
import subprocess
import sys
from pathlib import Path

from demo.stack import ROOT
from fast_spark.jars import JARS
from tests.helpers.workspace import Workspace

import pytest
from pyspark.find_spark_home import _find_spark_home

PRINT_SETTINGS = """
from fast_spark.tuning import local_settings
from tutorial.session import delta_session

with delta_session("test", "{warehouse}") as spark:
    expected = local_settings(short_run=True)
    conf = spark.sparkContext.getConf()
    print(spark.sparkContext.master, sum(conf.get(name) == value for name, value in expected.items()))
"""
SUBMIT = (str(Path(_find_spark_home(), "bin", "spark-submit")), "--jars", ",".join(map(str, JARS.glob("*.jar"))))


@pytest.mark.slow
@pytest.mark.launcher
def test_settings_for_short_run_do_not_apply_under_spark_submit(workspace: Workspace) -> None:
    script = workspace.folder / "print_settings.py"
    script.write_text(PRINT_SETTINGS.format(warehouse=workspace.warehouse))
    done = subprocess.run(
        [*SUBMIT, "--master", "local[1]", str(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYSPARK_PYTHON": sys.executable},
        cwd=workspace.working_directory,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.stdout.splitlines()[-1:] == ["local[1] 0"], done.stderr  # spark-submit puts both outputs into one


@pytest.mark.slow
def test_script_with_own_java_options_prints_no_warning(workspace: Workspace) -> None:
    """Another garbage collector and heap size, as a company may set them for all its Java programs."""
    workspace.succeed("create_table.py", JDK_JAVA_OPTIONS="-XX:+UseParallelGC", _JAVA_OPTIONS="-Xmx800m")
