"""Publish the lag of a table of your own: a writer and a long-running consumer, in one script to be short.

Copy it and replace the path, the names of the metrics and the query. It needs the library, PySpark and Delta Lake.
"""

import os

from lag_detector import Pushgateway, ReaderVersionListener, last_commit

from delta import configure_spark_with_delta_pip
from pyspark.sql import SparkSession

LAKE = os.environ.get("LAKE", "/tmp/lake")
ORDERS = f"{LAKE}/orders"


def delta_session() -> SparkSession:
    """Start a session as Delta's documentation does. Your own will do as well."""
    builder = (
        SparkSession.builder.appName("billing")
        .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
        .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
    )
    return configure_spark_with_delta_pip(builder).getOrCreate()


def main() -> None:
    """Write, then stream until the process is ended."""
    gateway = Pushgateway(os.environ.get("PUSHGATEWAY_URL", "http://localhost:9091"))
    spark = delta_session()
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
    main()
