"""Compare a table of 10,000 versions with one of 10: look up the last version, run a consumer that is up to date."""

import json
import os
import time
from functools import partial
from pathlib import Path

from tutorial.script import progress

from benchmarks.measuring import Run, Settings, in_turn, run_python, table
from demo.stack import ROOT
from fast_spark.session import delta_session
from lag_detector import last_commit

SHORT, LONG = 10, 10_000  # versions; multiples of 10, at which Delta writes a checkpoint of the log


def long_histories(folder: Path, settings: Settings) -> str:
    """Make both tables, then measure with each in turn."""

    def script(name: str, versions: int, turn: int = 0) -> Run:
        place = settings | {"VISITS_WAREHOUSE": f"{folder}/{versions}"}
        return run_python([f"{ROOT}/{name}.py"], folder, place, turn)

    for versions in (SHORT, LONG):
        progress(f"Making a table of {versions:,} versions …")
        script("create_table", versions)
        script("visits_creator_job", versions)
        copy_commits(folder / f"{versions}/visits/_delta_log", 3, versions - 3)
        script("visits_creator_job", versions)
    with delta_session("long_histories", str(folder)) as spark:

        def look_up(versions: int, turn: int = 0) -> Run:
            spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()  # type: ignore[union-attr]
            start = time.monotonic()
            assert last_commit(spark, f"{folder}/{versions}/visits").version == versions
            return Run(time.monotonic() - start)

        look_up(SHORT)  # only warms up
        lookups = in_turn("Last version", [partial(look_up, SHORT), partial(look_up, LONG)])
    for versions in (SHORT, LONG):
        for name in ("visits_consumer", "visits_creator_job", "visits_consumer"):  # all of it, then what is new
            script(name, versions)
    name = "visits_consumer"
    consumers = in_turn("Consumer that is up to date", [partial(script, name, SHORT), partial(script, name, LONG)])

    def row(what: str, runs: list[Run], digits: int) -> str:
        few, many = (run.seconds for run in runs)
        return f"{what}, s | {few:.{digits}f} | {many:.{digits}f} | {many / few:.2f}"

    rows = [row("last version of the table", lookups, 2), row("consumer that is up to date", consumers, 1)]
    return table(f"| {SHORT:,} versions | {LONG:,} versions | ratio", rows)


def copy_commits(log: Path, commit: int, last: int) -> None:
    """Copy a commit of a table's log to the versions after it, up to `last`, each with a data file of its own."""
    text = (log / f"{commit:020d}.json").read_text()
    data = next(action["add"]["path"] for action in map(json.loads, text.splitlines()) if "add" in action)
    for version in range(commit + 1, last + 1):
        name = f"part-{version:020d}.parquet"
        os.link(log.parent / data, log.parent / name)
        (log / f"{version:020d}.json").write_text(text.replace(data, name))
