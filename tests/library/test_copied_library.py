"""Three files of the library are the whole pattern, four with a running query. Copied, they work alone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from demo.stack import ROOT
from fast_spark.jars import JARS
from tests.helpers import disk_truth as truth

import pytest

PATTERN = ("errors.py", "pushgateway.py", "versions.py")

# In a session as Delta's documentation builds it.
JOB = """
import os
import sys

from pattern.pushgateway import Pushgateway
from pattern.versions import last_commit, next_version
from running.listener import ReaderVersionListener
from running.pushgateway import Pushgateway as GatewayOfListener

from pyspark.sql import SparkSession

spark = (
    SparkSession.builder.master("local[2]")
    .config("spark.jars", os.environ["JARS"])
    .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
    .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
    .config("spark.sql.streaming.noDataProgressEventInterval", "500")
    .getOrCreate()
)
gateway = Pushgateway(os.environ["GATEWAY"])
for _ in range(3):
    spark.range(5).write.format("delta").mode("append").save("orders")
gateway.push_latest("visits_writer_version", lambda: last_commit(spark, "./orders"))

orders = spark.readStream.format("delta").load("orders").writeStream.format("noop")
query = orders.option("checkpointLocation", "checkpoint").trigger(availableNow=True).start()
query.awaitTermination()
gateway.push("visits_reader_version", next_version(query.lastProgress) - 1)

spark.range(5).write.format("delta").mode("append").save("orders")
query = orders.option("checkpointLocation", "checkpoint").trigger(processingTime="100 milliseconds").start()
metrics = {"./orders": "visits_test"}
listener = ReaderVersionListener(spark, query, GatewayOfListener(os.environ["GATEWAY"]), metrics, report=print)
spark.streams.addListener(listener)
query.processAllAvailable()
while "visits_test" not in gateway.group_names("visits_test"):
    query.awaitTermination(1)
listener.close()
query.stop()
print("lag_detector" in sys.modules)
"""

# Settings that only make the session faster.
FASTER = (
    "--conf spark.ui.enabled=false --conf spark.sql.shuffle.partitions=1 --conf spark.default.parallelism=1 "
    "--conf spark.databricks.delta.snapshotPartitions=1 --driver-java-options -XX:TieredStopAtLevel=1 pyspark-shell"
)


@pytest.mark.slow
def test_copied_files_in_an_empty_folder_push_versions(tmp_path: Path, pushgateway_url: str) -> None:
    for folder, files in (("pattern", PATTERN), ("running", (*PATTERN, "listener.py"))):
        (tmp_path / folder).mkdir()
        for file in files:
            shutil.copy(ROOT / "lag_detector" / file, tmp_path / folder)
    (tmp_path / "job.py").write_text(JOB)
    done = subprocess.run(
        [sys.executable, "job.py"],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": "",
            "GATEWAY": pushgateway_url,
            "JARS": ",".join(map(str, JARS.glob("*.jar"))),
            "PYSPARK_SUBMIT_ARGS": FASTER,
        },
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-2:] == [f"visits_test 3 pushed to {pushgateway_url}", "False"]
    assert truth.gauges(pushgateway_url) == {
        "visits_writer_version": 2,
        "visits_reader_version": 2,
        "visits_test": 3,
    }
