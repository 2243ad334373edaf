"""Make tables with thousands of commits within seconds."""

import json
import os
from pathlib import Path

from tutorial.visits import register_table

import create_table
import visits_creator_job

from pyspark.sql import SparkSession

CHECKPOINT_INTERVAL = 10  # Delta's default


def make_table(spark: SparkSession, warehouse: Path, versions: int) -> None:
    """Make the visits table with this many versions. Spark writes the last ones, and a checkpoint with them.

    Args:
        spark: a session with Delta Lake.
        warehouse: the folder for the table.
        versions: a multiple of 10, since Delta writes a checkpoint at every tenth version.
    """
    use(spark, warehouse)
    create_table.create_visits(spark)
    visits_creator_job.append_visits(spark)
    log = warehouse / "visits" / "_delta_log"
    by_spark = CHECKPOINT_INTERVAL - 1 if versions > CHECKPOINT_INTERVAL else 6
    copy_commits(log, 3, versions - by_spark)
    use(spark, warehouse)
    while len(list(log.glob("*.json"))) <= versions:
        visits_creator_job.append_visits(spark)


def copy_commits(log: Path, commit: int, last: int) -> None:
    """Copy a commit to the versions after it, up to `last`, each with a data file of its own."""
    actions = [json.loads(line) for line in (log / f"{commit:020d}.json").read_text().splitlines()]
    data = next(action["add"]["path"] for action in actions if "add" in action)
    for version in range(commit + 1, last + 1):
        name = f"part-{version:020d}.parquet"
        os.link(log.parent / data, log.parent / name)
        for action in actions:
            if "add" in action:
                action["add"]["path"] = name
            if "commitInfo" in action:
                action["commitInfo"]["timestamp"] += 1
        text = "\n".join(json.dumps(action) for action in actions)
        (log / f"{version:020d}.json").write_text(f"{text}\n")


def use(spark: SparkSession, warehouse: Path) -> None:
    """Register the table of this warehouse, if there is one, in the place of any other."""
    clear_cache(spark)
    spark.sql("DROP TABLE IF EXISTS default.visits")
    os.environ["VISITS_WAREHOUSE"] = str(warehouse)
    if (warehouse / "visits").exists():
        register_table(spark)


def clear_cache(spark: SparkSession) -> None:
    """Clear Delta's cache of the tables' logs."""
    spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()  # type: ignore[union-attr]
