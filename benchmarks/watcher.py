"""Measure the watcher with up to 10,000 consumers, and with a long log."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from urllib.request import Request, urlopen

from tutorial.script import progress

from benchmarks.turns import RUNS, Settings, turns
from delta_watch.commits import commit_name
from lag_detector.errors import LagDetectorError

import matplotlib.pyplot as plt

PICTURE = Path(__file__).parent / "watcher.png"
PAIRS = (1, 10, 100, 1_000, 10_000)
REQUIRED_AT = 1_000
REQUIRED = {"round": 1.0, "memory": 100.0, "scrape": 0.1}  # seconds, MiB, seconds
FIRST_LOOK = 1.0  # seconds, with LONG versions
TABLE_ID = "table"
LONG, SHORT = 10_000, 10  # versions
BEHIND = 3  # versions, every second consumer
BATCHES = 100  # that Spark keeps in a checkpoint
STATISTICS = json.dumps(
    {
        "numRecords": 3,
        "minValues": {"visit_id": "visit 1-0", "user_id": "user 1", "page": "about.html"},
        "maxValues": {"visit_id": "visit 1-2", "user_id": "user 9", "page": "pricing.html"},
        "nullCount": {"visit_id": 0, "event_time": 0, "user_id": 0, "page": 0},
    }
)


class Figures(NamedTuple):
    """What was measured with this many pairs of a table and a consumer, in seconds, MiB and bytes."""

    pairs: int
    first: float
    quiet: float
    busy: float
    memory: float
    scrape: float
    scrape_bytes: int


def outside_view(folder: Path, settings: Settings) -> Iterator[str]:
    """Measure with more and more consumers, draw `watcher.png`, and look at a long log for the first time."""
    measured = []
    up_to_date, behind = (make_checkpoint(folder / f"read {read}", read) for read in (SHORT, SHORT - BEHIND))
    for pairs in PAIRS:
        progress(f"Watcher: making {pairs:,} tables …")
        here = folder / str(pairs)
        for number in range(pairs):
            make_pair(here / f"{number:05}", SHORT, behind if number % 2 else up_to_date)
        measured.append(measure_watcher(here, pairs, settings))
    draw(measured, PICTURE)
    yield "## The watcher\n"
    yield (
        f"Each pair is a table of {SHORT} versions with a consumer of its own, whose checkpoint has {BATCHES} "
        f"batches. Every second one is {BEHIND} versions behind; consumers that have read the same link to one "
        f"checkpoint. Local disk, one process. Medians of 5 rounds and {4 * RUNS} scrapes over HTTP with gzip; the "
        "first round and the one with a commit in each table are single.\n"
    )
    yield (
        "| pairs | first round, ms | round without news, ms | round with a commit in each table, ms | memory, MiB "
        "| scrape, ms | scrape with gzip, kB |"
    )
    yield f"|{'---|' * 7}"
    for of in measured:
        yield (
            f"| {of.pairs:,} | {of.first * 1e3:.0f} | {of.quiet * 1e3:.1f} | {of.busy * 1e3:.1f} | {of.memory:.0f} "
            f"| {of.scrape * 1e3:.1f} | {of.scrape_bytes / 1e3:.0f} |"
        )
    at = next(of for of in measured if of.pairs == REQUIRED_AT)
    yield (
        f"\nRequired with {REQUIRED_AT:,} pairs: a round of {verdict(at.busy, REQUIRED['round'], 's')}, "
        f"memory of {verdict(at.memory, REQUIRED['memory'], 'MiB')}, a scrape of "
        f"{verdict(at.scrape, REQUIRED['scrape'], 's')}.\n"
    )
    yield f"![Rounds, memory and scrapes with up to {PAIRS[-1]:,} pairs]({PICTURE.name})\n"
    yield from first_looks(folder / "long", settings)


def first_looks(folder: Path, settings: Settings) -> Iterator[str]:
    """Look at a long log for the first time: with a consumer that is up to date, and with one that has read nothing."""
    progress(f"Watcher: making a table of {LONG:,} versions …")
    pair = folder / "watched" / "pair"
    make_pair(pair, LONG, folder / "checkpoint")
    yield f"| first look at a table of {LONG:,} versions | ms |\n|---|---|"
    for name, read in (("consumer that is up to date", LONG), ("consumer that has read version 0 only", 0)):
        make_checkpoint(folder / "checkpoint", read)
        took = []
        for _ in turns(f"First look, {name}"):
            with watching(pair.parent, settings) as figures:
                took.append(figures["first"])
            (pair / "table" / "_delta_log" / commit_name(LONG + 1)).unlink()  # which the process has added
        yield f"| {name} | {median(took) * 1e3:.1f} ({'met' if median(took) < FIRST_LOOK else 'not met'}) |"
    yield ""


def verdict(value: float, limit: float, unit: str) -> str:
    return f"{limit:g} {unit} at most: {value:.3g} {unit} ({'met' if value <= limit else 'not met'})"


def measure_watcher(folder: Path, pairs: int, settings: Settings) -> Figures:
    """Watch all pairs in a process of its own, and scrape it.

    Raises:
        LagDetectorError: it shows wrong lags.
    """
    with watching(folder, settings) as figures:
        lags = [1 + BEHIND * (number % 2) for number in range(pairs)]
        if figures["versions"] != lags:
            raise LagDetectorError(f"the watcher shows wrong lags with {pairs:,} pairs")
        scrapes, size = [], 0
        for _ in range(4 * RUNS):
            request = Request(f"http://127.0.0.1:{figures['port']}/metrics", headers={"Accept-Encoding": "gzip"})
            start = time.monotonic()
            with urlopen(request, timeout=60) as response:
                size = len(response.read())
            scrapes.append(time.monotonic() - start)
    return Figures(
        pairs=pairs,
        first=figures["first"],
        quiet=median(figures["quiet"]),
        busy=figures["busy"],
        memory=figures["memory"],
        scrape=median(scrapes),
        scrape_bytes=size,
    )


@contextmanager
def watching(folder: Path, settings: Settings) -> Iterator[dict[str, Any]]:
    """Watch the pairs of a folder in a process, and yield what it printed while it serves the metrics."""
    command = [sys.executable, "-m", "benchmarks.watcher_process", str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env={**os.environ, **settings}, text=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.kill()


def make_pair(folder: Path, versions: int, checkpoint: Path) -> None:
    """Make a table with a file in each version, as Delta writes it, and a link to the checkpoint of its consumer."""
    log = folder / "table" / "_delta_log"
    log.mkdir(parents=True)
    for version in range(versions + 1):
        info = {"timestamp": 1_795_633_862_241 + version, "operation": "WRITE", "engineInfo": "Delta-Lake/4.4.0"}
        actions: list[dict[str, Any]] = [{"commitInfo": info}]
        if version:
            file = {"path": f"part-{version}.parquet", "partitionValues": {}, "size": 1330, "modificationTime": 1}
            actions.append({"add": {**file, "dataChange": True, "stats": STATISTICS}})
        else:
            actions.append({"metaData": {"id": TABLE_ID, "schemaString": "{}"}})
            actions.append({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}})
        text = "".join(f"{json.dumps(action, separators=(',', ':'))}\n" for action in actions)
        (log / commit_name(version)).write_text(text)
    for version in range(max(0, versions - SHORT), versions + 1):
        (log / f"{version:020d}.crc").write_text(json.dumps({"metadata": {"id": TABLE_ID}}))
    if versions > SHORT:
        (log / "_last_checkpoint").write_text(json.dumps({"version": versions - versions % SHORT}))
    (folder / "checkpoint").symlink_to(checkpoint)


def make_checkpoint(folder: Path, read: int) -> Path:
    """Make or replace the checkpoint of a consumer that has read this version: all that Spark keeps, and checksums."""
    offset = {"sourceVersion": 1, "reservoirId": TABLE_ID, "reservoirVersion": read + 1, "index": -1}
    lines = ["v1", json.dumps({"batchTimestampMs": 1, "conf": {f"option {n}": "x" * 60 for n in range(20)}})]
    lines.append(json.dumps({**offset, "isStartingVersion": False}))
    for kind, text in (("offsets", "\n".join(lines)), ("commits", 'v1\n{"nextBatchWatermarkMs":0}')):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for batch in range(BATCHES):
            (folder / kind / str(batch)).write_text(text)
            (folder / kind / f".{batch}.crc").write_text("")
    return folder


def draw(measured: list[Figures], picture: Path) -> None:
    """Plot the figures against the number of pairs, both on a logarithmic scale."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.5), dpi=100, layout="constrained")
    pairs = [of.pairs for of in measured]
    rounds, memory, scrape = axes
    rounds.loglog(pairs, [of.first for of in measured], "o-", label="first")
    rounds.loglog(pairs, [of.busy for of in measured], "^:", label="with a commit in each table")
    rounds.loglog(pairs, [of.quiet for of in measured], "s--", label="without news")
    rounds.set_title("round, s")
    memory.semilogx(pairs, [of.memory for of in measured], "o-", label="resident")
    memory.set_title("memory, MiB")
    memory.set_ylim(bottom=0)
    scrape.loglog(pairs, [of.scrape for of in measured], "o-", label="over HTTP with gzip")
    scrape.set_title("scrape, s")
    for at, limit in zip(axes, REQUIRED.values(), strict=True):
        at.plot([REQUIRED_AT], [limit], "v", color="#c4162a", label=f"limit at {REQUIRED_AT:,}")
        at.xaxis.set_major_formatter("{x:,.0f}")
        at.yaxis.set_major_formatter("{x:,g}")
        at.set_xlabel("tables with a consumer each")
        at.legend(loc="upper left")
    figure.savefig(picture)
    plt.close(figure)
