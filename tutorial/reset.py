"""Delete the table and the checkpoints of its consumers. Needs no Spark, and works on a local disk only."""

import shutil
from pathlib import Path

from tutorial.script import run
from tutorial.settings import checkpoints_location, table_location

from lag_detector.errors import LagDetectorError


def main() -> None:
    """Delete them, unless there is something else than a Delta table in the table's place."""
    folders = [Path(location.removeprefix("file:")) for location in (table_location(), checkpoints_location())]
    table = folders[0]
    if ":/" in str(table):
        raise LagDetectorError(f"{table.parent} is not a local folder; run python create_table.py to start over")
    if table.exists() and not (table / "_delta_log").exists():
        raise LagDetectorError(f"{table} is not a Delta table; move it away")
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=not folder.exists())
    print(f"{table.parent} has no table and no checkpoints.")


if __name__ == "__main__":
    run(main)
