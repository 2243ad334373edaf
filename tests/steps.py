"""The steps of the tutorial inside one Spark session: seconds instead of a start of Spark each."""

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import create_table
import visits_consumer
import visits_creator_job
from lag_detector.versions import last_read_version
from lag_detector.visits import TABLE, open_table, start_over
from tests.truth import Disk

from pyspark.sql import SparkSession

MONTHS = 100 * 24 * 3600


class Steps:
    """What the scripts do, in a session that goes on; the settings are those of the environment."""

    def __init__(self, spark: SparkSession, warehouse: Path) -> None:
        self.spark = spark
        self.disk = Disk(warehouse)

    def forget_what_was_open(self) -> None:
        """Let the session know as little of the table as that of a new script does."""
        self.spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()  # type: ignore[union-attr]
        self.spark.sql(f"DROP TABLE IF EXISTS {TABLE}")  # from the catalog only

    def open(self) -> None:
        """Open the table as a new script does."""
        self.forget_what_was_open()
        open_table(self.spark)

    def create(self) -> None:
        self.forget_what_was_open()
        start_over(self.spark)
        create_table.create_visits(self.spark)

    def write(self) -> None:
        self.open()
        visits_creator_job.append_visits(self.spark)

    def consume(self, **options: str) -> int | None:
        """Stream what is new with these options of the source; gives the version that the consumer would publish."""
        self.open()
        stream: Any = SimpleNamespace(readStream=self.spark.readStream.options(**options))
        query = visits_consumer.stream_visits(stream, availableNow=True)
        query.awaitTermination()
        return last_read_version(query.lastProgress)

    def clean_up_the_log(self) -> None:
        """Let all files of the log be months old; the next commit writes a checkpoint and removes those before it."""
        for file in self.disk.log.iterdir():
            os.utime(file, times=(time.time() - MONTHS,) * 2)
        self.spark.sql(f"ALTER TABLE {TABLE} SET TBLPROPERTIES ('delta.checkpointInterval' = '1')")
