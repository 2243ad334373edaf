"""Delete the table and the checkpoints of its consumers. Needs no Spark, and works on a local disk only."""

import shutil
from pathlib import Path

from tutorial.script import run
from tutorial.settings import checkpoints_location, table_location, warehouse

from lag_detector.errors import LagDetectorError


def main() -> None:
    """Delete them, unless there is something else than a Delta table in the table's place."""
    local = warehouse().removeprefix("file:")
    if ":/" in local:
        raise LagDetectorError(f"{local} is not a local folder; run python create_table.py to start over")
    table, checkpoints = (Path(place.removeprefix("file:")) for place in (table_location(), checkpoints_location()))
    if table.exists() and not (table / "_delta_log").exists():
        raise LagDetectorError(f"{table} is not a Delta table; move it away")
    for folder in (checkpoints, table):
        if folder.exists():
            shutil.rmtree(folder)
    print(f"{local} has no table and no checkpoints.")


if __name__ == "__main__":
    run(main)
