"""Run a script of the tutorial without one of the measures in `lag_detector/startup.py`, to see what it gains.

python -m benchmarks.without MEASURE SCRIPT
"""

import runpy
import sys
from pathlib import Path

from demo.stack import ROOT
from lag_detector import session, startup

NOWHERE = Path("/nowhere")


def kept_jars() -> None:
    startup.JARS = NOWHERE
    session._keep_jars = lambda spark: None


def class_archive() -> None:
    startup.class_archive = lambda java: None


def one_compiler() -> None:
    startup.ONE_COMPILER = "-XX:TieredStopAtLevel=4"  # Java's default


def java_in_utc() -> None:
    startup.JAVA_OPTIONS = tuple(option for option in startup.JAVA_OPTIONS if option != "-Duser.timezone=UTC")


def no_code_generation() -> None:
    startup.SHORT_RUN.clear()


def few_partitions() -> None:
    for setting in ("sql.leafNodeDefaultParallelism", "sql.shuffle.partitions", "databricks.delta.snapshotPartitions"):
        del startup.SETTINGS[f"spark.{setting}"]


def warm_up() -> None:
    startup.warm_up = lambda gateway: None


def stop_at_once() -> None:
    startup.stop_at_once = lambda: None


def nothing() -> None:
    """Leave everything as it is."""


MEASURES = {
    measure.__name__: measure
    for measure in (
        nothing,
        kept_jars,
        class_archive,
        one_compiler,
        no_code_generation,
        few_partitions,
        java_in_utc,
        warm_up,
        stop_at_once,
    )
}

if __name__ == "__main__":
    MEASURES[sys.argv[1]]()
    runpy.run_path(str(ROOT / f"{sys.argv[2]}.py"), run_name="__main__")
