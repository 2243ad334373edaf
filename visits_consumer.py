"""Stream every version of default.visits that was not read yet, print its rows, then stop: the consumer.

Publishes the last version that it has read completely as visits_reader_version. Run again with nothing
new, it prints no rows and publishes the same version again.
"""

import json
import sys
from typing import Any

from lag_detector.cli import run
from lag_detector.errors import LagDetectorError
from lag_detector.gauges import READER_VERSION, publish, pushgateway
from lag_detector.places import checkpoint_location, warehouse
from lag_detector.session import delta_session
from lag_detector.versions import last_read_version
from lag_detector.visits import TABLE, open_table, show

from pyspark.sql import DataFrame, SparkSession


def print_visits(visits: DataFrame, batch_id: int) -> None:
    """Print the rows of one batch; this is where a consumer does its work."""
    show(visits)


def consume_visits(spark: SparkSession) -> Any:
    """Stream what is there now and return the last progress of the stream, parsed."""
    query = (
        spark.readStream.table(TABLE)
        .writeStream.foreachBatch(print_visits)
        .option("checkpointLocation", checkpoint_location())
        .trigger(availableNow=True)
        .start()
    )
    query.awaitTermination()
    assert query.lastProgress is not None  # every run makes one, also with nothing new
    return json.loads(query.lastProgress.json)


def main() -> None:
    """Read, then say how far we are."""
    gateway = pushgateway()  # first: a typo in its setting must not cost a round
    with delta_session("visits_consumer", warehouse()) as spark:
        open_table(spark)
        print(f"Streaming what is new in {TABLE} …", file=sys.stderr)
        version = last_read_version(consume_visits(spark))
        if version is None:
            raise LagDetectorError("no version is read completely yet; run python visits_consumer.py again to go on")
        publish(gateway, READER_VERSION, version, "Last version of the visits table read completely")


if __name__ == "__main__":
    sys.exit(run(main))
