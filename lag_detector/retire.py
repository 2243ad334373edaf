"""Retire a consumer: remove its gauges from the Pushgateway, so that no alert tells of it for ever.

Usage: python -m lag_detector.retire fraud
"""

import sys

from lag_detector.cli import run
from lag_detector.consumers import of_consumer
from lag_detector.errors import LagDetectorError
from lag_detector.gauges import READER_VERSION, jobs, pushgateway, remove
from lag_detector.places import checkpoint_location


def main() -> None:
    """Remove the gauges of the consumer that is named; its checkpoint stays, for it may come back."""
    gateway = pushgateway()
    name = " ".join(sys.argv[1:])
    job = of_consumer(READER_VERSION, name)
    there = jobs(gateway, READER_VERSION)
    if not name or job not in there:
        named = [other.removeprefix(f"{READER_VERSION}_") for other in there if other != READER_VERSION]
        raise LagDetectorError(
            f"there is no consumer with the name {name!r} on the Pushgateway; run python -m lag_detector.retire with "
            f"the name of one that is there ({', '.join(named) or 'there are none'})"
        )
    remove(gateway, job)
    print(f"{job} removed from {gateway.address}; its checkpoint stays in {checkpoint_location(name)}")


if __name__ == "__main__":
    sys.exit(run(main))
