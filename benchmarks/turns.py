"""What all parts share: the number of runs, and the environment variables of what they run."""

import os
from collections.abc import Iterator

from tutorial.script import progress

RUNS = int(os.environ.get("RUNS", "5"))

Settings = dict[str, str]


def turns(what: str) -> Iterator[int]:
    """Count the runs, and print each one's number on standard error."""
    for turn in range(RUNS):
        progress(f"{what}: {turn + 1} of {RUNS} …")
        yield turn
