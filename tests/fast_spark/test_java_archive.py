"""The archive of Java's classes: made once, used where it fits, harmless where it does not."""

import shutil
from collections.abc import Callable
from pathlib import Path

from fast_spark.archive import AOT_SINCE, archive_kind, find_archive
from fast_spark.jars import JARS
from fast_spark.java import find_java
from tests.helpers.script_outputs import CREATED
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


def other_jars(archive: bytes) -> bytes:
    """This checkout's own archive does not fit the jars of a copy."""
    return archive


def other_java(archive: bytes) -> bytes:
    build = b"Server VM ("
    assert build in archive[:2000]
    return archive.replace(build, b"Server VM [", 1)


def truncated(archive: bytes) -> bytes:
    return archive[:50_000_000]


def empty(archive: bytes) -> bytes:
    return b""


@pytest.mark.parametrize(
    "change", [truncated, *(pytest.param(each, marks=pytest.mark.slow) for each in (empty, other_jars, other_java))]
)
def test_archive_that_does_not_fit_is_not_used(
    change: Callable[[bytes], bytes], workspace: Workspace, cache: Path
) -> None:
    """Java decides when it starts, before Spark. A truncated archive would crash it."""
    own = find_archive(find_java())
    assert own
    archive = change(own.read_bytes())
    size = own.stat().st_size if change is truncated else len(archive)  # the one in its name
    (cache / f"{workspace.succeed('print_stem.py').strip()}-{size}.jsa").write_bytes(archive)
    log = workspace.folder / "classes.log"
    assert workspace.succeed("start_java.py", _JAVA_OPTIONS=f"-Xlog:class+load:file={log}") == ""
    assert log.read_text().count("source: ") > 500
    assert ARCHIVED not in log.read_text()


@pytest.mark.usefixtures("warehouses")
def test_archive_of_make_setup_is_used(class_log: Path) -> None:
    """By the shared session, which starts as that of a script, and has taken the tutorial's steps."""
    assert class_log.read_text().count(ARCHIVED) > USED


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
