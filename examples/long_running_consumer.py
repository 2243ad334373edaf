"""Stream default.visits until Ctrl-C or SIGTERM, and push the last version read after every batch.

While there is nothing new it pushes every 10 seconds: a consumer that is silent is dead. The first signal lets the
running batch end; a second one ends the process at once. Run it with VISITS_CONSUMER=NAME for an additional consumer.
"""

import sys
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from any folder

from tutorial.script import on_stop_signal, progress, run
from tutorial.session import delta_session
from tutorial.settings import checkpoint_location, consumer_name, pushgateway
from tutorial.visits import READER_VERSION, TABLE, print_visits, register_table

from lag_detector import GracefulStop, ReaderVersionListener, commit_timestamp, group_name, next_version


def main() -> None:
    """Stream and push until asked to stop, then push once more."""
    gateway, consumer, stop = pushgateway(), consumer_name(), GracefulStop()
    with delta_session("long_running_consumer", short_run=False) as spark:
        register_table(spark)
        progress(f"Streaming {TABLE} until Ctrl-C …")
        query = (
            spark.readStream.table(TABLE)
            .writeStream.foreachBatch(stop.between_batches(print_visits))
            .option("checkpointLocation", checkpoint_location())
            .trigger(processingTime="1 second")
            .start()
        )
        listener = ReaderVersionListener(spark, query, gateway, {TABLE: READER_VERSION}, consumer, report=progress)
        spark.streams.addListener(listener)
        with closing(listener), on_stop_signal(stop.request):
            stop.await_termination(query)
        version = next_version(query.lastProgress) - 1
        gateway.push(READER_VERSION, version, commit_timestamp(spark, TABLE, version), consumer)
        print(f"{group_name(READER_VERSION, consumer)} {version} pushed to {gateway}")


if __name__ == "__main__":
    run(main)
