"""The tutorial's steps inside one Spark session, which saves a start of Spark for each."""

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tutorial.reset import start_over
from tutorial.visits import TABLE, commit_time, register_table

import create_table
import visits_consumer
import visits_creator_job
from lag_detector import Pushgateway
from tests.helpers.disk_truth import Disk
from tests.helpers.running_streams import v2_enabled

from pyspark.sql import SparkSession


def clear_session(spark: SparkSession) -> None:
    """Let the session know as little about the table as a new script's session."""
    spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()  # type: ignore[union-attr]
    spark.sql(f"DROP TABLE IF EXISTS {TABLE}")  # only from the catalog


class NoGateway(Pushgateway):
    """A gateway without gauges."""

    def __init__(self) -> None:
        super().__init__("http://no-gateway")

    def delete_metric(self, metric: str, retry: bool = True) -> None:
        """Do nothing."""


class Steps:
    """What the scripts do, with the settings of the environment.

    The consumer reads by Delta's DSv2 source as the script does, or by the classic one as it does on a cluster.
    """

    def __init__(self, spark: SparkSession, warehouse: Path, v2: bool = True) -> None:
        self.spark = spark
        self.disk = Disk(warehouse)
        self.v2 = v2

    def register(self) -> None:
        """Register the table as a new script does."""
        clear_session(self.spark)
        register_table(self.spark)

    def create(self) -> None:
        """Do what create_table.py does, except for the gauges."""
        clear_session(self.spark)
        start_over(self.spark, NoGateway())
        create_table.create_visits(self.spark)

    def write(self) -> None:
        """Do what visits_creator_job.py does, except for the push."""
        self.register()
        visits_creator_job.append_visits(self.spark)

    def consume(self, **options: str) -> int:
        """Stream what is new, with these options of the source, and return the version that the consumer would push."""
        with v2_enabled(self.spark, self.v2):
            self.register()
            with_options: Any = SimpleNamespace(readStream=self.spark.readStream.options(**options))
            version = visits_consumer.stream_visits(with_options)
            commit_time(self.spark, version)
            return version

    def clean_up_log(self) -> None:
        """Make all files of the log months old. The next commit writes a checkpoint and deletes those before it."""
        months_ago = time.time() - 100 * 24 * 3600
        for file in self.disk.log.iterdir():
            os.utime(file, times=(months_ago, months_ago))
        self.spark.sql(f"ALTER TABLE {TABLE} SET TBLPROPERTIES ('delta.checkpointInterval' = '1')")
