"""Stream every version of default.visits that was not read yet, print its rows, then stop: the consumer.

Publishes the last version that it has read completely as visits_reader_version. Run again with nothing
new, it prints no rows and publishes the same version again. With --follow it goes on until it is stopped.
"""

import sys
from typing import Any

from lag_detector.cli import option, run, tell
from lag_detector.consumers import consumer
from lag_detector.errors import LagDetectorError
from lag_detector.follow import between_batches, publish_until_stopped
from lag_detector.gauges import READER_VERSION, publish, pushgateway
from lag_detector.listener import ReaderVersionListener
from lag_detector.places import checkpoint_location, warehouse
from lag_detector.session import delta_session
from lag_detector.versions import commit_time, last_read_version
from lag_detector.visits import TABLE, open_table, show

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.query import StreamingQuery


@between_batches
def print_visits(visits: DataFrame, batch_id: int) -> None:
    """Print the rows of one batch; this is where a consumer does its work."""
    show(visits)


def stream_visits(spark: SparkSession, **trigger: Any) -> StreamingQuery:
    """Start the stream where the last run ended."""
    return (
        spark.readStream.table(TABLE)
        .writeStream.foreachBatch(print_visits)
        .option("checkpointLocation", checkpoint_location())
        .trigger(**trigger)
        .start()
    )


def main() -> None:
    """Read, then say how far we are."""
    follow = option("--follow")
    gateway, name = pushgateway(), consumer()  # first: a typo in a setting must not cost a round
    with delta_session("visits_consumer", warehouse(), short_run=not follow) as spark:
        open_table(spark)
        tell(f"Streaming what is new in {TABLE} …")
        if follow:
            query = stream_visits(spark, processingTime="1 second")
            listener = ReaderVersionListener(spark, query, gateway, {TABLE: READER_VERSION}, name, tell=tell)
            publish_until_stopped(spark, query, listener)
        else:
            query = stream_visits(spark, availableNow=True)
            query.awaitTermination()
        version = last_read_version(query.lastProgress)
        if version is None:
            raise LagDetectorError("no version is read completely yet; run python visits_consumer.py again to go on")
        publish(gateway, READER_VERSION, version, commit_time(spark, TABLE, version), name)


if __name__ == "__main__":
    sys.exit(run(main))
