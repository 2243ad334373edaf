"""Watch the tables of a folder, print what it took as JSON, and serve the metrics until standard input ends."""

import json
import os
import sys
import time
from pathlib import Path

from benchmarks.processes import resident
from delta_watch.commits import commit_name
from delta_watch.exporter import Server, serve
from delta_watch.watcher import Consumer, Watcher

ROUNDS = 5


def main(folder: Path) -> None:
    """Watch each table with its consumer: for a first round, a few without news, and one with a commit everywhere."""
    names = sorted(path.name for path in folder.iterdir())
    tables = {name: str(folder / name / "table") for name in names}
    start = time.monotonic()
    watcher = Watcher(tables, [Consumer(name, name, str(folder / name / "checkpoint")) for name in names])
    watcher.run_round()
    first = time.monotonic() - start
    quiet = [seconds_of_a_round(watcher) for _ in range(ROUNDS)]
    for state in watcher.states:
        assert state.head
        log = Path(tables[state.name], "_delta_log")
        os.link(log / commit_name(state.head.version), log / commit_name(state.head.version + 1))
    busy = seconds_of_a_round(watcher)
    known = [of.backlog for state in watcher.states for of in state.consumers]
    figures = {
        "first": first,
        "quiet": quiet,
        "busy": busy,
        "memory": resident(os.getpid()),
        "versions": [backlog.versions for backlog in known if backlog],
        "port": serve(watcher, Server(port=0)).server_port,
    }
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.stdout.flush()
    sys.stdin.read()


def seconds_of_a_round(watcher: Watcher) -> float:
    watcher.run_round()
    assert watcher.last_round
    return watcher.last_round.seconds


if __name__ == "__main__":
    main(Path(sys.argv[1]))
