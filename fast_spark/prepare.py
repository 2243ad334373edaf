"""Fetch Delta's jars and make Java's archive. Run again, it makes what is missing."""

import os
import sys
import tempfile
from contextlib import redirect_stdout
from importlib.metadata import version
from io import StringIO
from pathlib import Path

from fast_spark.archive import archive_kind, archive_stem, delete_other_archives, find_archive, option_to_make
from fast_spark.console import progress
from fast_spark.environment import CACHE
from fast_spark.failure import run
from fast_spark.jars import kept_jars
from fast_spark.java import Java, find_java
from fast_spark.session import delta_session, needs_launcher
from fast_spark.tuning import READ_ONLY

from delta.tables import DeltaTable
from pyspark import SparkContext
from pyspark.sql import SparkSession


def make_archive(java: Java) -> None:
    """Let Java write an archive of every class that a create, write, read and stream has loaded, when it ends.

    The archive appears complete or not at all. If it cannot be made, this says so: the scripts run without one too.

    Args:
        java: the Java that is going to use it.
    """
    kind = archive_kind(java)
    progress(f"Making the {kind}: scripts then take half the time (once, 40 seconds, 200 MB) …")
    try:
        CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            made = Path(folder, "classes.jsa")
            os.environ["SPARK_MASTER"] = "local[*]"  # a cluster has no use for it
            options = [option_to_make(java, made)]
            with delta_session("make_archive", folder, java_options=options) as spark, redirect_stdout(StringIO()):
                exercise(spark, folder)
                process = SparkContext._gateway.proc  # type: ignore[union-attr]
            process.stdin.close()
            process.wait(timeout=300)
            archive = made.rename(CACHE / f"{archive_stem(java)}-{made.stat().st_size}.jsa")
    except OSError as error:
        progress(f"No {kind} was made ({error.strerror}): the scripts run without it, slower.")
        return
    delete_other_archives(java, archive)


def exercise(spark: SparkSession, folder: str) -> None:
    """Do what the scripts do, since the archive contains the classes that were used."""
    name = "default.practice"
    table = DeltaTable.create(spark).tableName(name).location(f"{folder}/practice")
    table.addColumn("id", "STRING", nullable=False).addColumn("at", "TIMESTAMP", nullable=False).execute()
    DeltaTable.forName(spark, name).detail().select("name", "tableFeatures").show()
    spark.sql(f"SHOW TBLPROPERTIES {name}").show()
    spark.sql(f"INSERT INTO {name} VALUES ('a', TIMESTAMP '2024-07-01 12:00:00Z')")
    spark.sql(f"DESCRIBE HISTORY {name} LIMIT 1").selectExpr("version", "unix_micros(timestamp) / 1e6").collect()
    for source, settings in {"classic": {}, "kernel": READ_ONLY}.items():
        for setting, value in settings.items():
            spark.conf.set(setting, value)
        spark.table(name).orderBy("id").show()
        (
            spark.readStream.table(name)
            .writeStream.foreachBatch(lambda rows, _: rows.orderBy("id").show())
            .option("checkpointLocation", f"{folder}/{source}")
            .trigger(availableNow=True)
            .start()
            .awaitTermination()
        )
    commit = spark.read.schema("commitInfo STRUCT<at: LONG>").json(f"{folder}/practice/_delta_log/{1:020d}.json")
    commit.selectExpr("coalesce(commitInfo.at / 1e3, unix_micros(_metadata.file_modification_time) / 1e6)").first()


def main() -> None:
    """Fetch the jars and make the archive, unless they are there."""
    java = find_java()
    if not kept_jars() and needs_launcher():
        with tempfile.TemporaryDirectory() as warehouse, delta_session("fetch_jars", warehouse):
            pass
        if kept_jars():  # restart: the launcher has added the jars to a session, and not to the class path
            os.execv(sys.executable, [sys.executable, "-m", "fast_spark.prepare"])
    if not (kept_jars() and find_archive(java)):
        make_archive(java)
    print(f"Spark {version('pyspark')} with Delta {version('delta-spark')} is ready on Java {java.version}.")


if __name__ == "__main__":
    run(main)
