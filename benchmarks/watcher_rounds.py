"""Measure the watcher's rounds, memory and scrapes with up to 10,000 pairs of a table and a consumer.

`python -m benchmarks.watcher_rounds FOLDER` watches those in a folder, in a process of its own because of the memory.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from statistics import median
from urllib.request import Request, urlopen

from tutorial.script import progress

from benchmarks.measuring import LIMIT, RUNS, Run, Settings, in_turn, resident, table
from delta_watch.commits import commit_name
from delta_watch.exporter import Server, WatcherCollector, serve
from delta_watch.watcher import Consumer, Watcher
from lag_detector.errors import LagDetectorError

PAIRS = (1, 10, 100, 1_000, 10_000)
SHORT, LONG = 10, 10_000  # versions
BEHIND = 3  # versions, every second consumer
BATCHES = 100  # that Spark keeps in a checkpoint


def the_watcher(folder: Path, settings: Settings) -> str:
    """Watch more and more pairs, then look at a long log for the first time."""
    originals = [make_pair(folder / f"{lag} behind", SHORT, lag) for lag in (0, BEHIND)]
    rows = []
    for pairs in PAIRS:
        progress(f"Watcher: {pairs:,} pairs …")
        for number in range(pairs):
            pair, original = folder / f"{pairs}/{number:05}", originals[number % 2]
            shutil.copytree(original / "table", pair / "table", copy_function=shutil.copyfile)  # not the times
            (pair / "checkpoint").symlink_to(original / "checkpoint")
        figures = watch(folder / str(pairs), pairs // 2 * BEHIND, settings)
        rows.append("{:,} | {:.0f} | {:.1f} | {:.1f} | {:.0f} | {:.1f} | {:.0f}".format(pairs, *figures))
    looks = {"consumer that is up to date": 0, "consumer that has read version 0 only": LONG}
    for name, lag in looks.items():
        pair = make_pair(folder / name / "pair", LONG, lag)
        (pair / "table/_delta_log/_last_checkpoint").write_text(json.dumps({"version": LONG}))
    runs = in_turn("First look", [partial(first_look, folder / name, lag, settings) for name, lag in looks.items()])
    first_looks = [f"{name} | {run.seconds * 1e3:.1f}" for name, run in zip(looks, runs, strict=True)]
    return (
        f"Each pair is a table of {SHORT} versions with a consumer of its own, whose checkpoint has {BATCHES} batches. "
        f"Every second one is {BEHIND} versions behind; consumers that have read the same link to one checkpoint. "
        "Local disk, one process. The first round and the one with a commit in each table are single. A scrape is the "
        f"median of {4 * RUNS}, over HTTP with gzip.\n\n"
        + table(
            "pairs | first round, ms | round without news, ms | round with a commit in each table, ms | memory, MiB "
            "| scrape, ms | scrape with gzip, kB",
            rows,
        )
        + "\n"
        + table(f"first look at a table of {LONG:,} versions | ms", first_looks)
    )


def make_pair(folder: Path, versions: int, lag: int) -> Path:
    """Make a table with a file in each version, and its consumer's checkpoint: all that Spark keeps, with checksums."""
    from tests.helpers.handmade_tables import Files, offset  # here, since pytest would count in the watcher's memory

    files = Files(folder)
    files.append(1, versions)
    for batch in range(BATCHES):
        files.read(batch, offset(versions - lag + 1))
    for file in (*sorted(files.log.iterdir())[-SHORT:], *files.checkpoint.glob("*/*")):
        file.with_name(f".{file.name}.crc").touch()
    return folder


def first_look(folder: Path, lag: int, settings: Settings, turn: int) -> Run:
    """Measure only the first round."""
    return Run(watch(folder, lag, settings)[0] / 1e3)


def watch(folder: Path, lag: int, settings: Settings) -> list[float]:
    """Watch the pairs of a folder in a process of its own, and return the figures that `main` prints.

    Raises:
        LagDetectorError: the lags that it found do not add up to `lag`.
    """
    command = [sys.executable, "-m", "benchmarks.watcher_rounds", str(folder)]
    done = subprocess.run(command, env=os.environ | settings, stdout=subprocess.PIPE, timeout=LIMIT, check=True)
    *figures, found = json.loads(done.stdout)
    if found != lag:
        raise LagDetectorError(f"the watcher found lags of {found} versions in {folder}, not {lag}")
    return figures  # type: ignore[no-any-return]


def main(folder: Path) -> None:
    """Watch each table with its consumer. Print the figures as JSON, and the sum of the lags behind them.

    Milliseconds of the first round, of one without news and of one with a commit in each table, MiB of memory,
    milliseconds and kB of a scrape.
    """
    names = sorted(path.name for path in folder.iterdir())
    tables = {name: f"{folder}/{name}/table" for name in names}
    start = time.monotonic()
    watcher = Watcher(tables, [Consumer(name, name, f"{folder}/{name}/checkpoint") for name in names])
    watcher.run_round()
    first = time.monotonic() - start
    quiet = median(seconds_of_a_round(watcher) for _ in range(RUNS))
    backlogs = [consumer.backlog for state in watcher.states for consumer in state.consumers]
    lag = sum(backlog.versions for backlog in backlogs if backlog)
    commits = []
    for state in watcher.states:
        assert state.head
        log = Path(tables[state.name], "_delta_log")
        commits.append(log / commit_name(state.head.version + 1))
        os.link(log / commit_name(state.head.version), commits[-1])
    busy, memory = seconds_of_a_round(watcher), resident(os.getpid())
    url = f"http://127.0.0.1:{serve(WatcherCollector(watcher), Server(port=0)).server_port}/metrics"
    scrapes, size = [], 0
    for _ in range(4 * RUNS):
        start = time.monotonic()
        with urlopen(Request(url, headers={"Accept-Encoding": "gzip"}), timeout=60) as response:
            size = len(response.read())
        scrapes.append(time.monotonic() - start)
    for commit in commits:
        commit.unlink()  # for the next turn
    print(json.dumps([first * 1e3, quiet * 1e3, busy * 1e3, memory, median(scrapes) * 1e3, size / 1e3, lag]))


def seconds_of_a_round(watcher: Watcher) -> float:
    watcher.run_round()
    assert watcher.last_round
    return watcher.last_round.seconds


if __name__ == "__main__":
    main(Path(sys.argv[1]))
