"""Measure the speed that the docs state. Print the results, and write them to benchmarks/results.md.

RUNS=3 measures 3 times instead of 5. PARTS="a_round long_histories" measures only those parts, and leaves the sections
of the others in results.md as they are.
"""

import os
import platform
import re
import tempfile
from importlib.metadata import version
from pathlib import Path

from tutorial.script import run

from benchmarks.fast_start_measures import what_each_measure_gains
from benchmarks.lakes import a_lake
from benchmarks.long_histories import long_histories
from benchmarks.many_consumers import many_consumers
from benchmarks.measuring import RUNS
from benchmarks.round_of_scripts import a_round
from benchmarks.watcher_in_a_bucket import the_watcher_in_a_bucket
from benchmarks.watcher_rounds import the_watcher
from demo.stack import ROOT, pushgateway
from fast_spark.java import find_java
from lag_detector.errors import LagDetectorError

import psutil

RESULTS = Path(__file__).parent / "results.md"
TITLE = "# Results of `make bench`\n\nWhole processes, in turn.\n\n"
PARTS = {
    part.__name__: part
    for part in (
        *(a_round, what_each_measure_gains, long_histories, many_consumers),
        *(the_watcher, the_watcher_in_a_bucket, a_lake),
    )
}


def heading(part: str) -> str:
    return f"## {part.replace('_', ' ').capitalize()}"


def machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    packages = ", ".join(f"{name} {version(name)}" for name in ("pyspark", "delta-spark"))
    return (
        f"{psutil.cpu_count()} cores ({platform.machine()}), {memory:.0f} GiB, {platform.system()}; "
        f"Java {find_java().version}, Python {platform.python_version()}, {packages}"
    )


def write(section: str) -> None:
    """Replace the section with the same heading in results.md, or add it."""
    others = re.split("^(?=## )", RESULTS.read_text(), flags=re.MULTILINE)[1:]
    sections = {text.partition("\n")[0]: text.strip() for text in [*others, section]}
    RESULTS.write_text(TITLE + "\n\n".join(sections.values()) + "\n")


def main() -> None:
    """Measure the parts that the environment variable names, or all of them."""
    chosen = os.environ.get("PARTS", "").split() or list(PARTS)
    if unknown := set(chosen) - set(PARTS):
        raise LagDetectorError(f"PARTS names {', '.join(unknown)}; use some of these: {' '.join(PARTS)}")
    with tempfile.TemporaryDirectory() as name, pushgateway(Path(name)) as gateway:
        for part in chosen:
            folder = Path(name, part)
            folder.mkdir()
            text = PARTS[part](folder, {"PUSHGATEWAY_URL": gateway, "PYTHONPATH": str(ROOT)})
            section = f"{heading(part)}\n\nMedians of {RUNS} runs on {machine()}.\n\n{text}"
            print(section, flush=True)
            write(section)


if __name__ == "__main__":
    run(main)
