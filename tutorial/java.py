"""Find the Java that Spark is going to start, and check that Spark runs on it."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from tutorial.settings import java_home

from lag_detector.errors import LagDetectorError

OLDEST = 17
SUPPORTED = "17, 21 or 25"


class Java(NamedTuple):
    """A Java: its major version, such as 17, and everything that identifies its build."""

    version: int
    build: str


def find_java() -> Java:
    """Find Java where Spark looks for it: in `JAVA_HOME`, else on the `PATH`.

    Raises:
        LagDetectorError: there is none, or it is too old for Spark.
    """
    home = java_home()
    java = str(Path(home, "bin", "java")) if home else shutil.which("java")
    fix = f"install Java {SUPPORTED}, and set JAVA_HOME or PATH to it"
    if java is None:
        raise LagDetectorError(f"Spark needs Java, and there is none on the PATH; {fix}")
    try:
        output = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60).stderr
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LagDetectorError(f"Java at {java} does not start; {fix}") from error
    # It also prints which variables it has picked up. They are not part of its build.
    lines = [line for line in output.splitlines() if "Picked up" not in line]
    version = re.search(r'version "(?:1\.)?(\d+)', output)
    if version is None:
        raise LagDetectorError(f"{java} does not report its version ({''.join(lines[:1])}); {fix}")
    if int(version[1]) < OLDEST:
        raise LagDetectorError(f"Java {version[1]} at {java} is too old for Spark; {fix}")
    return Java(int(version[1]), "\n".join([os.path.realpath(java), *lines]))


def main() -> None:
    """Print which Java was found."""
    print(f"Java {find_java().version} is supported.")


if __name__ == "__main__":
    from tutorial.script import run

    run(main)
