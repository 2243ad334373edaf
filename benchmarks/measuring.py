"""What all benchmarks share: one way to run in turn, to measure a process, to write a table."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tutorial.script import progress

from demo.stack import last_line
from lag_detector.errors import LagDetectorError

import psutil

RUNS = int(os.environ.get("RUNS", "5"))
LIMIT = 600  # seconds for one process

Settings = dict[str, str]  # environment variables for what is run


class Run(NamedTuple):
    """One run: its seconds, and the peak of the resident memory of all its processes."""

    seconds: float
    mib: float = 0.0


def in_turn(what: str, cases: Sequence[Callable[[int], Run]]) -> list[Run]:
    """Run the cases one after another, RUNS times, so that a change of the machine's speed affects all of them.

    Args:
        what: what to show as progress.
        cases: called with the number of the turn.

    Returns:
        The median of each case.
    """
    turns = []
    for turn in range(RUNS):
        progress(f"{what}: {turn + 1} of {RUNS} …")
        turns.append([case(turn) for case in cases])
    return [Run(*map(median, zip(*runs, strict=True))) for runs in zip(*turns, strict=True)]


def run_python(arguments: Sequence[str], folder: Path, settings: Settings, turn: int = 0) -> Run:
    """Run Python to its end in the turn's own folder, and measure the whole process.

    Raises:
        LagDetectorError: it failed or did not end.
    """
    here = folder / str(turn)
    here.mkdir(parents=True, exist_ok=True)
    printed, peak = here / "printed.log", 0.0
    with printed.open("wb") as log:
        command, start = [sys.executable, *arguments], time.monotonic()
        process = subprocess.Popen(command, cwd=here, env=os.environ | settings, stdout=log, stderr=log)
        try:
            while process.poll() is None and time.monotonic() < start + LIMIT:
                peak = max(peak, resident(process.pid))
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.2)
            seconds = time.monotonic() - start
        finally:
            process.kill()
    if process.wait():
        raise LagDetectorError(f"{arguments} failed, or took over {LIMIT} s ({last_line(printed.read_text())})")
    return Run(seconds, peak)


def resident(pid: int) -> float:
    """Return the resident memory of a process and its descendants, in MiB."""
    total = 0
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
    return total / 2**20


def table(header: str, rows: Iterable[str]) -> str:
    """Return a table in Markdown. The cells of a line have ` | ` between them."""
    lines = [f"| {line} |" for line in (header, *rows)]
    return "\n".join([lines[0], f"|{'---|' * (header.count('|') + 1)}", *lines[1:], ""])
