"""What makes a start fast is there where it may be, does no harm where it does not fit, and is nowhere else."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from demo.stack import ROOT
from lag_detector.java import check_java
from lag_detector.startup import JARS, SETTINGS, SHORT_RUN, class_archive
from tests.conftest import GIVE_UP_ROOT, Reader, complaints

import pytest
from pyspark.find_spark_home import _find_spark_home

USED = 10_000  # classes; nearly 15,000 come from a good archive


class Copy:
    """A copy of the scripts with a class archive of its own, or none."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.folder = reader.folder / "a reader's copy"
        shutil.copytree(ROOT / "lag_detector", self.folder / "lag_detector")
        shutil.copy(ROOT / "create_table.py", self.folder)
        self.cache = self.folder / ".cache"
        shutil.copytree(JARS, self.cache / JARS.name)

    def start(self, *command: str, prefix: tuple[str, ...] = (), **settings: str) -> subprocess.Popen[str]:
        """Start Python with these arguments in the copy."""
        pipe = subprocess.PIPE
        environment = {
            **os.environ,
            "PUSHGATEWAY_URL": self.reader.stack.pushgateway,
            "VISITS_WAREHOUSE": str(self.reader.warehouse),
            **settings,
        }
        command = (*prefix, sys.executable, *command)
        return subprocess.Popen(command, cwd=self.folder, env=environment, stdout=pipe, stderr=pipe, text=True)

    def run(self, *command: str, prefix: tuple[str, ...] = (), **settings: str) -> tuple[str, str]:
        """Run Python, which must succeed, and give what it said on standard output and standard error."""
        with self.start(*command, prefix=prefix, **settings) as process:
            try:
                out, err = process.communicate(timeout=240)
            finally:
                process.kill()
        assert process.returncode == 0, err
        return out, err

    def keep(self, archive: bytes, size: int | None = None) -> None:
        """Let the copy find this archive, under the name of one that is made here."""
        ask = "from lag_detector.startup import *; from lag_detector.java import *; print(archive_stem(check_java()))"
        stem = self.run("-c", ask)[0].strip()
        (self.cache / f"{stem}-{size or len(archive)}.jsa").write_bytes(archive)

    def classes_from_archive(self) -> int:
        """Create the table, as quietly as ever, and count the classes that did not come from a jar or Java's own."""
        log = self.reader.folder / "classes.log"
        options = f"--driver-java-options -Xlog:class+load:file={log} pyspark-shell"
        out, err = self.run("create_table.py", PYSPARK_SUBMIT_ARGS=options)
        assert "|spark_catalog.default.visits|" in out
        assert "[warning]" not in out
        assert complaints(err) == []
        return log.read_text().count("shared objects file (top)")


@pytest.fixture
def copy(alone: Reader) -> Copy:
    return Copy(alone)


def good(copy: Copy) -> bytes:
    archive = class_archive(check_java())
    assert archive
    return archive.read_bytes()


def of_another_java(copy: Copy) -> bytes:
    archive = good(copy)
    build = b"Server VM ("
    assert build in archive[:2000]
    return archive.replace(build, b"Server VM [", 1)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda copy: b"", id="empty"),
        pytest.param(lambda copy: os.urandom(4096), id="no archive at all"),
        pytest.param(good, id="of jars elsewhere"),
        pytest.param(of_another_java, id="of another Java"),
    ],
)
def test_a_class_archive_that_does_not_fit_is_not_used(copy: Copy, make: Callable[[Copy], bytes]) -> None:
    copy.keep(make(copy))
    assert copy.classes_from_archive() == 0


def test_a_class_archive_that_is_missing_or_cut_off(copy: Copy) -> None:
    assert copy.classes_from_archive() == 0
    archive = good(copy)
    copy.keep(archive[:50_000_000], size=len(archive))
    assert copy.classes_from_archive() == 0


def test_two_set_ups_at_once_make_one_archive_that_is_used(copy: Copy) -> None:
    stale = copy.cache / f"classes-java-{check_java().version}-of-older-jars.jsa"
    stale.touch()
    both = [copy.start("-m", "lag_detector.setup") for _ in range(2)]
    try:
        told = [process.communicate(timeout=300) for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [0, 0], told
    assert [complaints(err) for _, err in told] == [[], []]
    jars, archive = sorted(copy.cache.iterdir(), reverse=True)
    assert jars.name == JARS.name
    made = archive.stat().st_mtime_ns
    assert copy.classes_from_archive() > USED
    assert "is ready on Java" in copy.run("-m", "lag_detector.setup")[0]
    assert archive.stat().st_mtime_ns == made  # once is enough


def test_set_up_in_a_folder_that_is_read_only(copy: Copy) -> None:
    copy.cache.chmod(0o555)
    out, err = copy.run("-m", "lag_detector.setup", prefix=GIVE_UP_ROOT)
    copy.cache.chmod(0o755)
    assert complaints(err) == ["No class archive was made (Permission denied): the scripts run without it, slower."]
    assert "is ready on Java" in out


SHOW_SETTINGS = """
from lag_detector.java import check_java
from lag_detector.session import delta_session
from lag_detector.startup import local_settings

with delta_session("test", "{warehouse}") as spark:
    ours = local_settings(check_java(), short_run=True)
    print(spark.sparkContext.master, sum(spark.sparkContext.getConf().get(name) == ours[name] for name in ours))
"""
SUBMIT = (str(Path(_find_spark_home(), "bin", "spark-submit")), "--jars", ",".join(map(str, JARS.glob("*.jar"))))


@pytest.mark.parametrize(
    ("command", "named", "expected"),
    [
        pytest.param((sys.executable,), {}, f"local[*] {len(SETTINGS | SHORT_RUN) + 1}", id="nothing names a master"),
        pytest.param(
            (sys.executable,), {"SPARK_MASTER": "local[1]"}, f"local[1] {len(SETTINGS | SHORT_RUN) + 1}", id="local"
        ),
        pytest.param((sys.executable,), {"SPARK_CONF_DIR": "{conf}"}, "local-cluster[1,1,1024] 0", id="a cluster"),
        pytest.param((*SUBMIT, "--master", "local[1]"), {}, "local[1] 0", id="spark-submit"),
    ],
)
def test_settings_for_a_short_run_are_for_this_machine_only(
    alone: Reader, command: tuple[str, ...], named: dict[str, str], expected: str
) -> None:
    (alone.folder / "spark-defaults.conf").write_text("spark.master local-cluster[1,1,1024]\n")
    named = {name: value.format(conf=alone.folder) for name, value in named.items()}
    code = alone.folder / "show_settings.py"
    code.write_text(SHOW_SETTINGS.format(warehouse=alone.warehouse))
    done = subprocess.run(
        [*command, str(code)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYSPARK_PYTHON": sys.executable, **named},
        cwd=alone.desk,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.stdout.splitlines()[-1:] == [expected], done.stderr  # spark-submit puts both outputs into one


def test_what_java_is_told_elsewhere_is_respected(alone: Reader) -> None:
    """Another collector and a heap of its own, as a company sets them for all its Java programs."""
    alone.succeed("create_table.py", JDK_JAVA_OPTIONS="-XX:+UseParallelGC", _JAVA_OPTIONS="-Xmx800m")
