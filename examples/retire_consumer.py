"""Retire an additional consumer: delete its gauges from the Pushgateway, so that no alert fires for it any more.

Its checkpoint stays. Run again, the consumer continues where it stopped.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from any folder

from tutorial.script import run
from tutorial.settings import checkpoint_location, pushgateway
from tutorial.visits import READER_VERSION

from lag_detector import LagDetectorError, group_name


def main(consumer: str) -> None:
    """Delete the gauges of the consumer."""
    gateway = pushgateway()
    group = group_name(READER_VERSION, consumer)
    groups = gateway.group_names(READER_VERSION)
    if not consumer or group not in groups:
        names = [name.removeprefix(f"{READER_VERSION}_") for name in groups if name != READER_VERSION]
        raise LagDetectorError(
            f"the Pushgateway has no consumer {consumer!r}; it has these: {', '.join(names) or 'none'}"
        )
    gateway.delete_group(group)
    print(f"{group} deleted from {gateway}; its checkpoint stays in {checkpoint_location(consumer)}")


if __name__ == "__main__":
    run(main, consumer="the name of the consumer, as in VISITS_CONSUMER")
