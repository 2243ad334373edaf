"""What all parts share: how often they measure, and what they are given."""

import os
import sys
from collections.abc import Iterator

RUNS = int(os.environ.get("RUNS", "5"))

Settings = dict[str, str]


def turns(what: str) -> Iterator[int]:
    """Count the runs, and say on standard error how far they are."""
    for turn in range(RUNS):
        print(f"{what}: {turn + 1} of {RUNS} …", file=sys.stderr)
        yield turn
