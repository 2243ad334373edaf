"""Run a script of the tutorial without one of the measures for a fast start, to see what the measure gains."""

import runpy
import sys
from pathlib import Path
from unittest.mock import patch

from tutorial.script import run

from demo.stack import ROOT
from fast_spark import tuning
from lag_detector.errors import LagDetectorError

NOWHERE = Path("/nowhere")


def replace(name: str, value: object) -> None:
    """Replace a name in the module that uses it, which is not always the one that defines it."""
    patch(f"fast_spark.{name}", value).start()


def kept_jars() -> None:
    replace("jars.JARS", NOWHERE)
    replace("archive.JARS", NOWHERE)  # the archive does not fit other jars
    replace("session.keep_jars", lambda spark: None)


def java_archive() -> None:
    replace("tuning.find_archive", lambda java: None)


def one_compiler() -> None:
    replace("tuning.ONE_COMPILER", "-XX:TieredStopAtLevel=4")  # Java's default


def java_in_utc() -> None:
    others = tuple(option for option in tuning.JAVA_OPTIONS if option != "-Duser.timezone=UTC")
    replace("tuning.JAVA_OPTIONS", others)


def interpreted_plans() -> None:
    tuning.SHORT_RUN.clear()


def few_partitions() -> None:
    for setting in ("sql.leafNodeDefaultParallelism", "sql.shuffle.partitions", "databricks.delta.snapshotPartitions"):
        del tuning.SETTINGS[f"spark.{setting}"]


def warm_up() -> None:
    replace("session.warm_up", lambda gateway: None)


def fast_stop() -> None:
    replace("session.stop_fast", lambda: None)


def nothing() -> None:
    """Leave everything as it is."""


MEASURES = {
    measure.__name__: measure
    for measure in (
        nothing,
        kept_jars,
        java_archive,
        one_compiler,
        interpreted_plans,
        few_partitions,
        java_in_utc,
        warm_up,
        fast_stop,
    )
}


def main(measure: str, script: str) -> None:
    """Remove the measure, then run the script."""
    if measure not in MEASURES:
        raise LagDetectorError(f"there is no measure {measure}; use one of these: {', '.join(MEASURES)}")
    MEASURES[measure]()
    del sys.argv[1:]  # the script takes no arguments
    runpy.run_path(str(ROOT / f"{script}.py"), run_name="__main__")


if __name__ == "__main__":
    run(main, measure=f"what to leave out: {', '.join(MEASURES)}", script="such as visits_creator_job")
