"""Run a program to its end, and measure its time and its peak memory, children included."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import NamedTuple

import psutil

STEPS = (
    "create_table",
    "visits_creator_job",
    "visits_reader",
    "visits_consumer",
    "visits_creator_job",
    "visits_consumer",
)
LIMIT = 600  # seconds
MIB = 2**20


class Run(NamedTuple):
    """One run: seconds from start to end, and the peak of the resident memory of all its processes, in MiB."""

    seconds: float
    peak: float


def measure(arguments: list[str], folder: Path, settings: dict[str, str]) -> Run:
    """Run Python with these arguments in a folder. Its output goes to `printed.log` there.

    Raises:
        CalledProcessError: it failed.
        TimeoutExpired: it did not end.
    """
    command = [sys.executable, *arguments]
    peak = 0.0
    with Path(folder, "printed.log").open("ab") as log:
        start = time.monotonic()
        process = subprocess.Popen(command, cwd=folder, env={**os.environ, **settings}, stdout=log, stderr=log)
        try:
            while process.poll() is None:
                if time.monotonic() - start > LIMIT:
                    raise subprocess.TimeoutExpired(command, LIMIT)
                peak = max(peak, resident(process.pid))
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.2)
            seconds = time.monotonic() - start
        finally:
            process.kill()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Run(seconds, peak)


def resident(pid: int) -> float:
    """Return the resident memory of a process and its descendants, in MiB."""
    total = 0
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
    return total / MIB


def seconds(runs: list[Run]) -> float:
    return median(run.seconds for run in runs)


def peak(runs: list[Run]) -> float:
    return median(run.peak for run in runs)
