"""Measure the watcher's rounds, requests and memory with up to 10,000 consumers in a bucket.

`python -m benchmarks.watcher_in_a_bucket FOLDER` watches those in a folder, in a process of its own for the memory.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from tutorial.script import progress

from benchmarks.measuring import LIMIT, RUNS, Settings, resident, table
from benchmarks.watcher_rounds import BEHIND, SHORT, make_pair, seconds_of_a_round
from delta_watch import store
from delta_watch.watcher import Consumer, Watcher
from lag_detector.errors import LagDetectorError

CONSUMERS = (10, 100, 1_000, 10_000)
OF_A_TABLE = 10
DELAY = 0.03  # seconds until the server answers
ROUNDS_OF_A_MONTH = 30 * 24 * 3600 / 15
DOLLARS = {"list": 5e-6, "head": 0.4e-6, "get": 0.4e-6}  # S3's list prices

SERVER = f"""
import sys
from tests.helpers.bucket_server import BucketServer
with BucketServer(delay={DELAY}).running() as server:
    print(server.address, flush=True)
    sys.stdin.read()
"""


@contextmanager
def bucket_server(settings: Settings) -> Iterator[Settings]:
    """Serve the disk as buckets, and yield the settings with which a watcher uses them."""
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(
        command, env=os.environ | settings, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout
        login = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "a", "AWS_REGION": "us-east-1"}
        yield {**settings, **login, "AWS_ALLOW_HTTP": "true", "AWS_ENDPOINT": server.stdout.readline().strip()}
        server.terminate()


def the_watcher_in_a_bucket(folder: Path, settings: Settings) -> str:
    """Watch more and more consumers of more and more tables."""
    originals = [make_pair(folder / f"{lag} behind", SHORT, lag) for lag in (0, BEHIND)]
    rows, growth = [], []
    with bucket_server(settings) as variables:
        for consumers in CONSUMERS:
            progress(f"Watcher in a bucket: {consumers:,} consumers …")
            here = folder / str(consumers)
            for number in range(consumers):
                place = here / f"{number // OF_A_TABLE:05}"
                if number % OF_A_TABLE == 0:
                    shutil.copytree(originals[0] / "table", place / "table", copy_function=shutil.copyfile)
                (place / f"{number % OF_A_TABLE}").symlink_to(originals[number % 2] / "checkpoint")
            watching = [sys.executable, "-m", "benchmarks.watcher_in_a_bucket", str(here)]
            done = subprocess.run(
                watching, env=os.environ | variables, stdout=subprocess.PIPE, timeout=LIMIT, check=True
            )
            first, quiet, memory, heads, dollars, lag = json.loads(done.stdout)
            if lag != consumers // 2 * BEHIND:
                raise LagDetectorError(f"the watcher found lags of {lag} versions in {here}")
            growth.append(quiet)
            rows.append(
                f"{consumers:,} | {consumers // OF_A_TABLE:,} | {heads:,} | {dollars:,.2f} | {first:.1f} | {quiet:.2f} "
                f"| {memory:.0f}"
            )
    return (
        f"{OF_A_TABLE} consumers of each table. Every second one is {BEHIND} versions behind. An S3 server on loopback "
        f"answers each request after {DELAY * 1e3:.0f} ms, and shares the two cores. The first round is single. "
        "Dollars are at S3's list prices, with a round every 15 s in which nothing is new.\n\n"
        + table("consumers | tables | HEAD a round | dollars a month | first round, s | round, s | memory, MiB", rows)
        + '\n```mermaid\nxychart-beta\n    title "Seconds of a round in which nothing is new"\n'
        + f"    x-axis [{', '.join(map(str, CONSUMERS))}]\n"
        + f"    line [{', '.join(f'{seconds:.2f}' for seconds in growth)}]\n```\n"
    )


def main(folder: Path) -> None:
    """Watch each table with its consumers. Print the figures as JSON."""
    names = sorted(path.name for path in folder.iterdir())
    consumers = [Consumer(str(n), name, f"s3:/{folder}/{name}/{n}") for name in names for n in range(OF_A_TABLE)]
    # The server, which shares the cores, may take long to list for all of them at once.
    watcher = Watcher({name: f"s3:/{folder}/{name}/table" for name in names}, consumers, time_limit=LIMIT)
    first = seconds_of_a_round(watcher)
    store.requests.clear()
    quiet = median(seconds_of_a_round(watcher) for _ in range(RUNS))
    heads = store.requests["head"] // RUNS
    dollars = sum(DOLLARS[operation] * count for operation, count in store.requests.items()) / RUNS * ROUNDS_OF_A_MONTH
    backlogs = [consumer.backlog for state in watcher.states for consumer in state.consumers]
    lag = sum(backlog.versions for backlog in backlogs if backlog)
    print(json.dumps([first, quiet, resident(os.getpid()), heads, dollars, lag]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
