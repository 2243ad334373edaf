"""Check that the Java which Spark is going to start is one it can run on."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from lag_detector.errors import LagDetectorError

OLDEST = 17
FINE = "17, 21 or 25"


class Java(NamedTuple):
    """A Java that Spark runs on: its major version, 17 for example, and what exactly it says that it is."""

    version: int
    build: str


def check_java() -> Java:
    """Find Java where Spark looks for it: in `JAVA_HOME`, else on the `PATH`.

    Raises:
        LagDetectorError: there is none, or it is older than Spark needs.
    """
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home, "bin", "java")) if home else shutil.which("java")
    mend = f"install Java {FINE} and let JAVA_HOME or PATH lead to it"
    if java is None:
        raise LagDetectorError(f"Spark needs Java and there is none on the PATH; {mend}")
    try:
        told = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60).stderr
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LagDetectorError(f"Java at {java} does not start; {mend}") from error
    version = re.search(r'version "(?:1\.)?(\d+)', told)
    if version is None:
        raise LagDetectorError(f"{java} does not tell its version; {mend}")
    if int(version[1]) < OLDEST:
        raise LagDetectorError(f"Java {version[1]} at {java} is too old for Spark; {mend}")
    return Java(int(version[1]), f"{java} {told}")


def main() -> None:
    """Say which Java was found."""
    print(f"Java {check_java().version} is fine.")


if __name__ == "__main__":
    from lag_detector.cli import run

    sys.exit(run(main))
