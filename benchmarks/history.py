"""Make tables with a history of thousands of commits within seconds."""

import json
import os
from pathlib import Path

import create_table
import visits_creator_job
from lag_detector.visits import open_table

from pyspark.sql import SparkSession

CHECKPOINT_INTERVAL = 10  # Delta's default


def make_table(spark: SparkSession, warehouse: Path, versions: int) -> None:
    """Make the visits table with this many versions, the last ones by Spark itself, which write a checkpoint too.

    Args:
        spark: a session that speaks Delta.
        warehouse: the folder where the table goes.
        versions: a multiple of 10 and not of 30, so that the last commits by Spark meet it.
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
    """Follow a commit by others like it, up to version `last`, each with a data file of its own."""
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
    """Let the session know the table in this warehouse, and no other, as a new script would."""
    forget(spark)
    spark.sql("DROP TABLE IF EXISTS default.visits")
    os.environ["VISITS_WAREHOUSE"] = str(warehouse)
    if (warehouse / "visits").exists():
        open_table(spark)


def forget(spark: SparkSession) -> None:
    """Let Delta forget what it has read of any table's log."""
    spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()  # type: ignore[union-attr]
