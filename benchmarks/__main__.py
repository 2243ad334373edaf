"""Measure the speed that the README states. Print the results, and write them to benchmarks/results.md.

Measures whole processes. What is compared runs in turn, so that a change of the machine's speed affects both sides.
Each figure is the median of 5 runs, or of as many as the environment variable RUNS says. PARTS="a_round long_histories"
measures only those parts, and leaves the results of the others as they are.
"""

import os
import platform
import re
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from statistics import mean, median

from tutorial.script import progress, run
from tutorial.visits import TABLE

from benchmarks.consumers import many_consumers
from benchmarks.detection import detection_delay
from benchmarks.history import clear_cache, copy_commits, make_table, use
from benchmarks.processes import STEPS, Run, measure, peak, seconds
from benchmarks.turns import RUNS, Settings, turns
from benchmarks.watcher import outside_view
from benchmarks.without import MEASURES
from demo.stack import ROOT, pushgateway
from fast_spark.java import find_java
from fast_spark.session import delta_session
from lag_detector import last_commit
from lag_detector.errors import LagDetectorError

import psutil

BENCHMARKS = Path(__file__).parent
RESULTS = BENCHMARKS / "results.md"
SHORT, LONG, MORE = 10, 10_000, 1_000  # versions
ROWS_OF_A_COMMIT = 3

Runs = dict[str, list[Run]]


def a_round(folder: Path, settings: Settings) -> Iterator[str]:
    """Compare the six steps with the same steps done the ordinary way, and with an empty session."""
    ours: Runs = {f"{n} {step}": [] for n, step in enumerate(STEPS, 1)}
    ordinary: Runs = {name: [] for name in ours}
    empty = []
    for turn in turns("Round"):
        here = folder / f"round-{turn}"
        here.mkdir()
        empty.append(measure([str(BENCHMARKS / "quick_start.py")], here, settings))
        for name in ours:
            step = name.partition(" ")[2]
            script, ordinary_way = str(ROOT / f"{step}.py"), str(BENCHMARKS / "ordinary_way.py")
            ours[name].append(measure([script], here, settings | {"VISITS_WAREHOUSE": str(here / "ours")}))
            ordinary[name].append(measure([ordinary_way, step], here, settings))
    quick_start = seconds(empty)
    yield "## A round\n"
    yield (
        f"An empty session as in Delta's quick start: {quick_start:.1f} s, {peak(empty):.0f} MiB. "
        f"Medians of {RUNS} runs.\n"
    )
    yield "| step | s | relative to an empty session | ordinary way, s | relative to it | MiB | ordinary way, MiB |"
    yield "|---|---|---|---|---|---|---|"
    for name, runs in ours.items():
        other = ordinary[name]
        yield (
            f"| {name} | {seconds(runs):.1f} | {seconds(runs) / quick_start:.2f} | {seconds(other):.1f} "
            f"| {seconds(runs) / seconds(other):.2f} | {peak(runs):.0f} | {peak(other):.0f} |"
        )
    total, others = (sum(map(seconds, side.values())) for side in (ours, ordinary))
    ratio = mean(seconds(runs) / quick_start for runs in ours.values())
    yield f"| all six | {total:.1f} | {ratio:.2f} on average | {others:.1f} | {total / others:.2f} | | |\n"


def each_measure(folder: Path, settings: Settings) -> Iterator[str]:
    """Leave out one measure for a fast start at a time, outside UTC."""
    script = "visits_creator_job"
    runs: Runs = {name: [] for name in MEASURES}
    places = {name: {"VISITS_WAREHOUSE": str(folder / name), "TZ": "Asia/Tokyo"} for name in MEASURES}
    for place in places.values():
        measure([str(ROOT / "create_table.py")], folder, settings | place)
    for _ in turns("Each measure"):
        for name, place in places.items():
            runs[name].append(measure(["-m", "benchmarks.without", name, script], folder, settings | place))
    yield "## What each measure gains\n"
    yield (
        f"The writer without one measure for a fast start (`fast_spark/tuning.py`). The time zone is Asia/Tokyo. "
        f"Medians of {RUNS} runs.\n"
    )
    yield "| without | visits_creator_job, s | gain | MiB |"
    yield "|---|---|---|---|"
    nothing = seconds(runs["nothing"])
    for name, each in runs.items():
        took = seconds(each)
        yield f"| {name.replace('_', ' ')} | {took:.1f} | {(took - nothing) / took:+.0%} | {peak(each):.0f} |"
    yield ""


def long_histories(folder: Path, settings: Settings) -> Iterator[str]:
    """Compare a table of many versions with one of few, and let the consumer catch up with many."""
    tables = {versions: folder / f"{versions} versions" for versions in (SHORT, LONG)}
    more = folder / "more"
    lookups: dict[int, list[float]] = {versions: [] for versions in tables}
    runs: dict[int, list[Run]] = {versions: [] for versions in tables}
    consumer, writer = [str(ROOT / "visits_consumer.py")], [str(ROOT / "visits_creator_job.py")]
    with delta_session("long_histories", str(folder)) as spark:
        for versions, table in (*tables.items(), (SHORT, more)):
            progress(f"Making a table of {versions} versions …")
            make_table(spark, table, versions)
        for turn in chain([None], turns("Last version")):  # the first one only warms up
            for versions, table in tables.items():
                use(spark, table)
                clear_cache(spark)
                start = time.monotonic()
                assert last_commit(spark, TABLE).version == versions
                if turn is not None:
                    lookups[versions].append(time.monotonic() - start)
    for script in (consumer, writer, consumer):  # the consumer reads all of the table, then some new versions
        for table in tables.values():
            measure(script, folder, settings | {"VISITS_WAREHOUSE": str(table)})
    for _ in turns("Consumer that is up to date"):
        for versions, table in tables.items():
            runs[versions].append(measure(consumer, folder, settings | {"VISITS_WAREHOUSE": str(table)}))
    yield f"## Long histories\n\nMedians of {RUNS} runs.\n"
    yield f"| | {SHORT} versions | {LONG:,} versions | ratio |\n|---|---|---|---|"
    few, many = (median(lookups[versions]) for versions in tables)
    yield f"| last version of the table, s | {few:.2f} | {many:.2f} | {many / few:.2f} |"
    few, many = (seconds(runs[versions]) for versions in tables)
    yield f"| consumer that is up to date, s | {few:.1f} | {many:.1f} | {many / few:.2f} |\n"
    catch_up = []
    place = {"VISITS_WAREHOUSE": str(more)}
    measure(consumer, folder, settings | place)
    for turn in turns(f"Reading {MORE} new versions"):
        copy_commits(more / "visits" / "_delta_log", SHORT + turn * MORE, SHORT + (turn + 1) * MORE)
        catch_up.append(measure(consumer, folder, settings | place))
    took, rows = seconds(catch_up), MORE * ROWS_OF_A_COMMIT
    yield f"A consumer reads {MORE:,} new versions in one run, in {took:.1f} s: {rows / took:.0f} rows per second.\n"


def machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    packages = ", ".join(f"{name} {version(name)}" for name in ("pyspark", "delta-spark"))
    return (
        f"{psutil.cpu_count()} cores ({platform.machine()}), {memory:.0f} GiB, {platform.system()}; "
        f"Java {find_java().version}, Python {platform.python_version()}, {packages}."
    )


PARTS = {
    part.__name__: part
    for part in (a_round, each_measure, long_histories, many_consumers, detection_delay, outside_view)
}


def main() -> None:
    """Measure the parts that the environment variable names, or all of them."""
    chosen = os.environ.get("PARTS", "").split() or list(PARTS)
    if unknown := set(chosen) - set(PARTS):
        raise LagDetectorError(f"PARTS names {', '.join(unknown)}; use some of these: {' '.join(PARTS)}")
    with tempfile.TemporaryDirectory() as name, pushgateway(Path(name)) as gateway:
        settings = {"PUSHGATEWAY_URL": gateway, "PYTHONPATH": str(ROOT)}
        head = f"# Results of `make bench`\n\nWhole processes, in turn. {machine()}\n\n"
        print(head)
        measured = []
        for part in chosen:
            folder = Path(name, part)
            folder.mkdir()
            measured.append("")
            for line in PARTS[part](folder, settings):
                print(line, flush=True)
                measured[-1] += f"{line}\n"
    others = re.split("^(?=## )", RESULTS.read_text(), flags=re.MULTILINE)[1:]
    sections = {section.partition("\n")[0]: section.strip() for section in [*others, *measured]}
    RESULTS.write_text(head + "\n\n".join(sections.values()) + "\n")


if __name__ == "__main__":
    run(main)
