"""Publish the lag of a table of your own: a writer and a long-running consumer, in one script to be short.

Replace the path, the names of the metrics and the query. Any Spark session with Delta Lake will do.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from any folder

from tutorial.script import run
from tutorial.session import delta_session

from lag_detector import Pushgateway, ReaderVersionListener, last_commit

LAKE = os.environ.get("LAKE", "/tmp/lake")
ORDERS = f"{LAKE}/orders"


def main() -> None:
    """Write, then stream until the process is ended."""
    gateway = Pushgateway(os.environ.get("PUSHGATEWAY_URL", "http://localhost:9091"))
    with delta_session("billing", LAKE, short_run=False) as spark:
        # The writer: after its commits, push how far the table is.
        spark.range(100).write.format("delta").mode("append").save(ORDERS)
        version = gateway.push_latest("orders_writer_version", lambda: last_commit(spark, ORDERS))
        print(f"orders_writer_version {version} pushed to {gateway}")

        # The consumer: any streaming query, with a listener that pushes how far it is.
        orders = spark.readStream.format("delta").load(ORDERS)
        checkpoint = f"{LAKE}/checkpoints/billing"
        query = orders.writeStream.format("noop").option("checkpointLocation", checkpoint).start()
        metrics = {ORDERS: "orders_reader_version"}
        listener = ReaderVersionListener(spark, query, gateway, metrics, consumer="billing", report=print)
        spark.streams.addListener(listener)
        query.awaitTermination()


if __name__ == "__main__":
    run(main)
