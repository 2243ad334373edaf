"""Compare a table of 10,000 versions with one of 10: run a consumer that is up to date."""

import json
import os
from functools import partial
from pathlib import Path

from tutorial.script import progress

from benchmarks.measuring import Run, Settings, in_turn, run_python, table
from demo.stack import ROOT

VERSIONS = (10, 10_000)  # multiples of 10, at which Delta writes a checkpoint of the log


def long_histories(folder: Path, settings: Settings) -> str:
    """Make both tables, then measure with each in turn."""

    def script(name: str, versions: int, turn: int = 0) -> Run:
        place = settings | {"VISITS_WAREHOUSE": f"{folder}/{versions}"}
        return run_python([f"{ROOT}/{name}.py"], folder, place, turn)

    for versions in VERSIONS:
        progress(f"Making a table of {versions:,} versions …")
        script("create_table", versions)
        script("visits_creator_job", versions)
        copy_commits(folder / f"{versions}/visits/_delta_log", 3, versions - 3)
        # The last three versions as a writer makes them; then read all of it, then what is new.
        for name in ("visits_creator_job", "visits_consumer", "visits_creator_job", "visits_consumer"):
            script(name, versions)
    runs = in_turn("Up to date", [partial(script, "visits_consumer", versions) for versions in VERSIONS])
    few, many = (run.seconds for run in runs)
    header = "| 10 versions | 10,000 versions | ratio"
    return table(header, [f"consumer that is up to date, s | {few:.1f} | {many:.1f} | {many / few:.2f}"])


def copy_commits(log: Path, commit: int, last: int) -> None:
    """Copy a commit of a table's log to the versions after it, up to `last`, each with a data file of its own."""
    text = (log / f"{commit:020d}.json").read_text()
    data = next(action["add"]["path"] for action in map(json.loads, text.splitlines()) if "add" in action)
    for version in range(commit + 1, last + 1):
        name = f"part-{version:020d}.parquet"
        os.link(log.parent / data, log.parent / name)
        (log / f"{version:020d}.json").write_text(text.replace(data, name))
