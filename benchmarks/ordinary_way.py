"""The steps of the tutorial in the ordinary way, to compare with: python ordinary_way.py STEP.

Hive's catalog in an embedded Derby, jars resolved at each start, Spark's default partitions, the last version
as the maximum over the whole history. The catalog goes into the current folder.
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
        .enableHiveSupport()
        .config("spark.sql.warehouse.dir", str(Path("warehouse").absolute()))
        .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
        .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
    )
    return configure_spark_with_delta_pip(builder).getOrCreate()


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
    show(spark.table(TABLE), 0)


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


def show(visits: DataFrame, batch_id: int) -> None:
    visits.orderBy("visit_id").show(1_000_000, truncate=False)


def push(gauge: str, version: int) -> None:
    registry = CollectorRegistry()
    Gauge(gauge, gauge, registry=registry).set(version)
    push_to_gateway(os.environ["PUSHGATEWAY_URL"], job=gauge, registry=registry)


STEPS = {step.__name__: step for step in (create_table, visits_creator_job, visits_reader, visits_consumer)}

if __name__ == "__main__":
    spark = session(sys.argv[1])
    STEPS[sys.argv[1]](spark)
    spark.stop()
