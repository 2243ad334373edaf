"""Print the whole table default.visits, ordered by visit_id."""

import sys

from lag_detector.cli import run, tell
from lag_detector.places import warehouse
from lag_detector.session import delta_session
from lag_detector.visits import TABLE, open_table, show


def main() -> None:
    """Read the table as it is now."""
    with delta_session("visits_reader", warehouse()) as spark:
        open_table(spark)
        tell(f"Reading {TABLE} …")
        show(spark.table(TABLE))


if __name__ == "__main__":
    sys.exit(run(main))
