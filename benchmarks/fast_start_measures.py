"""Measure what each measure for a fast start gains: run the writer without one of them at a time.

`python -m benchmarks.fast_start_measures "warm up"` runs the writer without that one.
"""

from functools import partial
from pathlib import Path
from unittest.mock import patch

from tutorial.script import run

import visits_creator_job
from benchmarks.measuring import Settings, in_turn, run_python, table
from demo.stack import ROOT
from fast_spark.tuning import JAVA_OPTIONS, SETTINGS

NOWHERE = ROOT / ".cache" / "nowhere"
# What to replace, in the module of `fast_spark` that uses it, which is not always the one that defines it.
WITHOUT: dict[str, dict[str, object]] = {
    "nothing": {},
    "kept jars": {
        "jars.JARS": NOWHERE,
        "archive.JARS": NOWHERE,  # the archive does not fit other jars
        "jars.keep_jars": lambda jars: None,
        "session.keep_jars": lambda jars: None,
    },
    "java archive": {"tuning.find_archive": lambda java: None},
    "one compiler": {"tuning.ONE_COMPILER": "-XX:TieredStopAtLevel=4"},  # Java's default
    "interpreted plans": {"tuning.SHORT_RUN": {}},
    "few partitions": {"tuning.SETTINGS": {name: value for name, value in SETTINGS.items() if value != "1"}},
    "java in utc": {"tuning.JAVA_OPTIONS": [option for option in JAVA_OPTIONS if "timezone" not in option]},
    "warm up": {"session.warm_up": lambda gateway: None},
    "fast stop": {"session.stop_fast": lambda: None},
}


def what_each_measure_gains(folder: Path, settings: Settings) -> str:
    """Run the writer with all measures but one, outside UTC, each time on the same table."""
    cases = []
    for measure in WITHOUT:
        place = settings | {"VISITS_WAREHOUSE": f"{folder}/{measure}", "TZ": "Asia/Tokyo"}
        run_python([f"{ROOT}/create_table.py"], folder, place)
        cases.append(partial(run_python, ["-m", "benchmarks.fast_start_measures", measure], folder, place))
    runs = in_turn("Each measure", cases)
    rows = [
        f"{measure} | {run.seconds:.1f} | {1 - runs[0].seconds / run.seconds:+.0%} | {run.mib:.0f}"
        for measure, run in zip(WITHOUT, runs, strict=True)
    ]
    return (
        "The writer without one measure for a fast start (`fast_spark/tuning.py`). The time zone is Asia/Tokyo.\n\n"
        + table("without | visits_creator_job, s | gain | MiB", rows)
    )


def main(measure: str) -> None:
    """Remove the measure, then run the writer."""
    for name, value in WITHOUT[measure].items():
        patch(f"fast_spark.{name}", value).start()
    visits_creator_job.main()


if __name__ == "__main__":
    run(main, measure=f"what to leave out: {', '.join(WITHOUT)}")
