"""Append three commits of three rows each to default.visits: the writer.

Publishes the table's last version as visits_writer_version: 3 after the first run, then 6, 9, ...
"""

import sys

from lag_detector.cli import run, tell
from lag_detector.gauges import WRITER_VERSION, Pushgateway, publish, pushgateway
from lag_detector.places import warehouse
from lag_detector.session import delta_session
from lag_detector.versions import last_commit
from lag_detector.visits import TABLE, open_table, rows

from pyspark.sql import SparkSession

COMMITS = 3


def append_visits(spark: SparkSession) -> None:
    """Append the rows; each INSERT makes one commit, and each commit the next version of the table."""
    for commit in range(COMMITS):
        spark.sql(f"INSERT INTO {TABLE} VALUES {rows(commit)}")


def publish_writer_version(spark: SparkSession, gateway: Pushgateway) -> None:
    """Publish the table's last version, again if another writer has moved it in the meantime."""
    published = None
    while (commit := last_commit(spark, TABLE)) != published:
        publish(gateway, WRITER_VERSION, *commit)
        published = commit


def main() -> None:
    """Write, then say how far the table is."""
    gateway = pushgateway()  # first: a typo in its setting must not cost a round
    with delta_session("visits_creator_job", warehouse()) as spark:
        open_table(spark)
        tell(f"Appending {COMMITS} commits to {TABLE} …")
        append_visits(spark)
        publish_writer_version(spark, gateway)


if __name__ == "__main__":
    sys.exit(run(main))
