"""Print the rows of default.visits that this consumer has not read yet, then push the last version read."""

from tutorial.script import progress, run
from tutorial.session import delta_session
from tutorial.settings import checkpoint_location, consumer_name, pushgateway
from tutorial.visits import READER_VERSION, TABLE, commit_time, print_visits, register_table

from lag_detector import group_name, next_version

from pyspark.sql import SparkSession


def stream_visits(spark: SparkSession) -> int:
    """Stream what is new, and return the last version read completely."""
    query = (
        spark.readStream.table(TABLE)
        .writeStream.foreachBatch(print_visits)
        .option("checkpointLocation", checkpoint_location())  # remembers how far the stream has read
        .trigger(availableNow=True)  # reads all that is there, then stops
        .start()
    )
    query.awaitTermination()
    # The end offset names the next version to read, so the last version read is the one before it.
    return next_version(query.lastProgress) - 1


def main() -> None:
    gateway, consumer = pushgateway(), consumer_name()
    with delta_session("visits_consumer", read_only=True) as spark:
        register_table(spark)
        progress(f"Streaming what is new in {TABLE} …")
        version = stream_visits(spark)
        gateway.push(READER_VERSION, version, commit_time(spark, version), consumer)
        print(f"{group_name(READER_VERSION, consumer)} {version} pushed to {gateway}")


if __name__ == "__main__":
    run(main)
