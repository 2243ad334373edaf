"""Measure how long the watcher takes to find all tables and consumers in a lake, on a disk and in a bucket.

`python -m benchmarks.lakes LOCATION` looks at one, in a process of its own for the memory.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median

from tutorial.script import progress

from benchmarks.measuring import LIMIT, RUNS, Settings, resident, table
from benchmarks.watcher_in_a_bucket import DELAY, bucket_server
from benchmarks.watcher_rounds import seconds_of_a_round
from delta_watch import store
from delta_watch.lake import Lake
from delta_watch.watcher import Watcher
from lag_detector.errors import LagDetectorError
from tests.helpers.handmade_tables import Files, offset

TABLES, CONSUMERS = 1_000, 10  # of each table


def a_lake(folder: Path, settings: Settings) -> str:
    """Find the tables and consumers of a large lake, without a configuration."""
    progress(f"A lake: {TABLES:,} tables …")
    for number in range(TABLES):
        made = Files(folder / f"area{number % 10}" / f"{number}", f"{number}")
        made.append(1, 3)
        made.checksum(3)
        made.read(0, offset(2, table_id=f"{number}"))
        for consumer in range(1, CONSUMERS):
            shutil.copytree(made.checkpoint, folder / "checkpoints" / f"team{number % 20}" / f"{number}-{consumer}")
    rows = []
    with bucket_server(settings) as variables:
        for name, location in {"a disk": str(folder), "a bucket": f"s3:/{folder}"}.items():
            command = [sys.executable, "-m", "benchmarks.lakes", location]
            done = subprocess.run(
                command, env=os.environ | variables, stdout=subprocess.PIPE, timeout=LIMIT, check=True
            )
            consumers, first, again, lists, memory = json.loads(done.stdout)
            if consumers != TABLES * CONSUMERS:
                raise LagDetectorError(f"the watcher found {consumers} consumers in {location}")
            rows.append(f"{name} | {first:.1f} | {again:.1f} | {lists:,} | {memory:.0f}")
    return (
        f"{TABLES:,} tables with {CONSUMERS} consumers each, none of them in a configuration. The bucket's server "
        f"answers each request after {DELAY * 1e3:.0f} ms, and shares the two cores. The first look is single.\n\n"
        + table("a lake in | first look, s | round with a search, s | LIST of a search | memory, MiB", rows)
    )


def main(location: str) -> None:
    """Watch a lake, and print the figures as JSON."""
    watcher = Watcher({}, [], time_limit=LIMIT, discovery_interval=0, lakes=[Lake(location)])
    first = seconds_of_a_round(watcher)
    store.requests.clear()
    again = median(seconds_of_a_round(watcher) for _ in range(RUNS))
    lists = store.requests["list"] // RUNS
    consumers = sum(consumer.backlog is not None for state in watcher.states for consumer in state.consumers)
    print(json.dumps([consumers, first, again, lists, resident(os.getpid())]))


if __name__ == "__main__":
    main(sys.argv[1])
