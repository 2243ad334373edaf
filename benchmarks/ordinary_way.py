"""Do a step of the tutorial the ordinary way, for comparison: python -m benchmarks.ordinary_way STEP

That is: Hive's catalog in an embedded Derby in the current folder, jars resolved at each start, Spark's default
partitions, and the last version as the maximum over the whole history. It pushes to PUSHGATEWAY_URL.
"""

import json
import os
import sys
from datetime import datetime, timezone
from pathlib import Path

from delta import configure_spark_with_delta_pip
from delta.tables import DeltaTable
from prometheus_client import CollectorRegistry, Gauge, push_to_gateway
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

TABLE = "default.visits"
COLUMNS = "visit_id STRING NOT NULL, event_time TIMESTAMP NOT NULL, user_id STRING NOT NULL, page STRING NOT NULL"


def session(step: str) -> SparkSession:
    builder = (
        SparkSession.builder.appName(step)
        .master("local[*]")
        .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
        .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
    )
    if step != "empty_session":
        builder = builder.enableHiveSupport().config("spark.sql.warehouse.dir", str(Path("warehouse").absolute()))
    return configure_spark_with_delta_pip(builder).getOrCreate()


def empty_session(spark: SparkSession) -> None:
    """Do nothing in a session configured as in Delta's quick start and no more."""


def create_table(spark: SparkSession) -> None:
    spark.sql(f"DROP TABLE IF EXISTS {TABLE}")
    spark.sql(f"CREATE TABLE {TABLE} ({COLUMNS}) USING DELTA")
    DeltaTable.forName(spark, TABLE).detail().select("name", "tableFeatures").show(truncate=False)
    spark.sql(f"SHOW TBLPROPERTIES {TABLE}").show(truncate=False)


def visits_creator_job(spark: SparkSession) -> None:
    for commit in range(3):
        rows = [
            (f"visit {n}-{commit}", datetime(2024, 7, 1, hour, tzinfo=timezone.utc), f"user {n}", page)
            for n, hour, page in ((1, 12, "index.html"), (2, 14, "contact.html"), (3, 15, "about.html"))
        ]
        spark.createDataFrame(rows, COLUMNS).write.format("delta").mode("append").saveAsTable(TABLE)
    version = DeltaTable.forName(spark, TABLE).history().agg(F.max("version")).first()
    assert version is not None
    push("ordinary_writer_version", version[0])


def visits_reader(spark: SparkSession) -> None:
    show(spark.table(TABLE))


def visits_consumer(spark: SparkSession) -> None:
    query = (
        spark.readStream.table(TABLE)
        .writeStream.foreachBatch(show)
        .option("checkpointLocation", str(Path("checkpoint").absolute()))
        .trigger(availableNow=True)
        .start()
    )
    query.awaitTermination()
    assert query.lastProgress is not None
    push("ordinary_reader_version", json.loads(query.lastProgress.json)["sources"][0]["endOffset"]["reservoirVersion"])


def show(visits: DataFrame, batch_id: int = 0) -> None:
    visits.orderBy("visit_id").show(1_000_000, truncate=False)


def push(metric: str, version: int) -> None:
    registry = CollectorRegistry()
    Gauge(metric, metric, registry=registry).set(version)
    push_to_gateway(os.environ["PUSHGATEWAY_URL"], job=metric, registry=registry)


STEPS = {
    step.__name__: step for step in (empty_session, create_table, visits_creator_job, visits_reader, visits_consumer)
}

if __name__ == "__main__":
    name = sys.argv[1]
    spark = session(name)
    STEPS[name](spark)
    spark.stop()
