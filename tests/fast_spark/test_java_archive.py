"""The archive of Java's classes: made once, used where it fits, harmless where it does not."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from demo.stack import ROOT
from fast_spark.archive import AOT_SINCE, archive_kind, find_archive
from fast_spark.jars import JARS
from fast_spark.java import find_java
from tests.helpers.workspace import WITHOUT_ROOT, Workspace, errors

import pytest

# A dynamic archive lies on top of Java's own one; an AOT cache replaces that.
ARCHIVED = "shared objects file" if find_java().version >= AOT_SINCE else "shared objects file (top)"
USED = 10_000  # classes; a good archive has nearly 15,000
START_JAVA = """
from fast_spark.launch import launch_directly
from fast_spark.tuning import fast_java_options
from fast_spark.jars import kept_jars
from fast_spark.java import find_java

with open("java.log", "wb") as log:
    launch_directly(find_java(), fast_java_options(find_java(), short_run=True), kept_jars(), log)
"""


class Copy:
    """A copy of the scripts, with an archive of its own or without one."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.folder = workspace.folder / "a user's copy"
        for package in ("delta_watch", "fast_spark", "lag_detector", "tutorial"):
            shutil.copytree(ROOT / package, self.folder / package)
        shutil.copy(ROOT / "create_table.py", self.folder)
        self.cache = self.folder / ".cache"
        shutil.copytree(JARS, self.cache / JARS.name)

    def start(self, *arguments: str, prefix: Sequence[str] = (), **settings: str) -> subprocess.Popen[str]:
        """Start Python in the copy with these arguments."""
        environment = {
            **os.environ,
            "PUSHGATEWAY_URL": self.workspace.stack.pushgateway,
            "VISITS_WAREHOUSE": str(self.workspace.warehouse),
            **settings,
        }
        return subprocess.Popen(
            [*prefix, sys.executable, *arguments],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, prefix: Sequence[str] = (), **settings: str) -> tuple[str, str]:
        """Run Python, which must succeed, and return its standard output and standard error."""
        with self.start(*arguments, prefix=prefix, **settings) as process:
            try:
                out, err = process.communicate(timeout=240)
            finally:
                process.kill()
        assert process.returncode == 0, err
        return out, err

    def add_archive(self, content: bytes, size: int | None = None) -> None:
        """Add an archive under the name that the copy looks for.

        Args:
            content: what the file contains.
            size: the size in its name; by default the file's own.
        """
        code = "from fast_spark.archive import archive_stem; from fast_spark.java import find_java as java"
        stem = self.run("-c", f"{code}; print(archive_stem(java()))")[0].strip()
        (self.cache / f"{stem}-{size or len(content)}.jsa").write_bytes(content)

    def classes_from_archive(self) -> int:
        """Create the table, which must print no warning, and count the classes that came from the archive."""
        log = self.workspace.folder / "classes.log"
        out, err = self.run("create_table.py", _JAVA_OPTIONS=f"-Xlog:class+load:file={log}")  # they come last and win
        assert "|spark_catalog.default.visits|" in out
        assert "[warning]" not in out
        assert errors(err) == []
        return log.read_text().count(ARCHIVED)


@pytest.fixture
def copy(workspace: Workspace) -> Copy:
    return Copy(workspace)


def good_archive() -> bytes:
    """Return this checkout's own archive, which does not fit the jars of a copy."""
    archive = find_archive(find_java())
    assert archive
    return archive.read_bytes()


def archive_of_another_java() -> bytes:
    archive = good_archive()
    build = b"Server VM ("
    assert build in archive[:2000]
    return archive.replace(build, b"Server VM [", 1)


@pytest.mark.parametrize(
    "add",
    [
        pytest.param(lambda copy: copy.add_archive(b""), id="empty", marks=pytest.mark.slow),
        pytest.param(lambda copy: copy.add_archive(good_archive()), id="other-jars", marks=pytest.mark.slow),
        pytest.param(lambda copy: copy.add_archive(archive_of_another_java()), id="other-java", marks=pytest.mark.slow),
        pytest.param(lambda copy: copy.add_archive(good_archive()[:50_000_000], len(good_archive())), id="truncated"),
    ],
)
def test_archive_that_does_not_fit_is_not_used(copy: Copy, add: Callable[[Copy], None]) -> None:
    """Java decides when it starts, before Spark."""
    add(copy)
    log = copy.workspace.folder / "classes.log"
    assert copy.run("-c", START_JAVA, _JAVA_OPTIONS=f"-Xlog:class+load:file={log}") == ("", "")
    assert log.read_text().count("source: ") > 500
    assert ARCHIVED not in log.read_text()


@pytest.mark.usefixtures("warehouses")
def test_archive_of_make_setup_is_used(class_log: Path) -> None:
    """By the shared session, which starts as that of a script, and has taken the tutorial's steps."""
    assert class_log.read_text().count(ARCHIVED) > USED


@pytest.mark.slow
def test_prepare_twice_at_once_makes_one_archive_that_is_used(copy: Copy) -> None:
    stale = copy.cache / f"java-{find_java().version}-of-older-jars.jsa"
    stale.touch()
    both = [copy.start("-m", "fast_spark.prepare") for _ in range(2)]
    try:
        outputs = [process.communicate(timeout=300) for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [0, 0], outputs
    assert [errors(err) for _, err in outputs] == [[], []]
    archive, jars = sorted(copy.cache.iterdir(), reverse=True)
    assert jars.name == JARS.name
    made = archive.stat().st_mtime_ns
    assert copy.classes_from_archive() > USED
    assert "is ready on Java" in copy.run("-m", "fast_spark.prepare")[0]
    assert archive.stat().st_mtime_ns == made  # not made again


def test_prepare_in_read_only_folder_makes_no_archive(copy: Copy) -> None:
    copy.cache.chmod(0o555)
    out, err = copy.run("-m", "fast_spark.prepare", prefix=WITHOUT_ROOT)
    copy.cache.chmod(0o755)
    assert errors(err) == [
        f"No {archive_kind(find_java())} was made (Permission denied): the scripts run without it, slower."
    ]
    assert "is ready on Java" in out
