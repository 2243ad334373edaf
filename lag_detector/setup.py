"""Make ready what the scripts need beside Python's packages; run again, it makes what is missing."""

import os
import sys
import tempfile
from contextlib import redirect_stdout, suppress
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from shlex import quote

from lag_detector.java import Java, check_java
from lag_detector.session import delta_session
from lag_detector.startup import CACHE, JARS, archive_stem, class_archive

from delta.tables import DeltaTable
from pyspark import SparkContext
from pyspark.sql import SparkSession


def fetch_jars() -> None:
    """Start Spark once, which fetches Delta's jars and keeps them."""
    with tempfile.TemporaryDirectory() as warehouse, delta_session("fetch_jars", warehouse):
        pass


def make_class_archive(java: Java) -> None:
    """Let Java write down, as it ends, every class that a create, write, read and stream has needed.

    The archive appears whole or not at all. Where it cannot be made this says so: the scripts run without one too.

    Args:
        java: the Java that is to use it.
    """
    print("Making the class archive: scripts then take half the time (once, 40 seconds, 200 MB) …", file=sys.stderr)
    stem = archive_stem(java)
    try:
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            made = Path(folder, "classes.jsa")
            option = quote(quote(f"-XX:ArchiveClassesAtExit={made}"))  # two shells' worth: PySpark's, and Spark's
            os.environ["PYSPARK_SUBMIT_ARGS"] = f"--driver-java-options {option} pyspark-shell"
            os.environ["SPARK_MASTER"] = "local[*]"  # a cluster has no use for it
            with delta_session("make_class_archive", folder) as spark, redirect_stdout(StringIO()):
                use_delta(spark, folder)
                process = SparkContext._gateway.proc  # type: ignore[union-attr]
            process.stdin.close()
            process.wait(timeout=300)
            archive = made.rename(CACHE / f"{stem}-{made.stat().st_size}.jsa")
    except OSError as error:
        print(f"No class archive was made ({error.strerror}): the scripts run without it, slower.", file=sys.stderr)
        return
    for other in set(CACHE.glob(f"classes-java-{java.version}-*")) - {archive}:
        with suppress(OSError):  # another user's
            other.unlink()


def use_delta(spark: SparkSession, folder: str) -> None:
    """Do in short what the scripts do, since the archive gets the classes that were used."""
    name = "default.practice"
    DeltaTable.create(spark).tableName(name).location(f"{folder}/practice").addColumn("at", "timestamp").execute()
    table = DeltaTable.forName(spark, name)
    table.detail().select("name", "tableFeatures").show()
    spark.sql(f"SHOW TBLPROPERTIES {name}").show()
    for _ in range(2):
        spark.sql(f"INSERT INTO {name} VALUES (TIMESTAMP '2024-07-01 12:00:00')")
        table.history(1).select("version").head()
        spark.table(name).orderBy("at").show()
        (
            spark.readStream.table(name)
            .writeStream.foreachBatch(lambda rows, _: rows.orderBy("at").show())
            .option("checkpointLocation", f"{folder}/checkpoint")
            .trigger(availableNow=True)
            .start()
            .awaitTermination()
        )


def main() -> None:
    """Fetch the jars and make the class archive, unless they are there."""
    java = check_java()
    if not JARS.exists():
        fetch_jars()
        if JARS.exists():  # start over, for a process has one Java only
            os.execv(sys.executable, [sys.executable, "-m", "lag_detector.setup"])
    if JARS.exists() and not class_archive(java):
        make_class_archive(java)
    print(f"Spark {version('pyspark')} with Delta {version('delta-spark')} is ready on Java {java.version}.")


if __name__ == "__main__":
    from lag_detector.cli import run

    sys.exit(run(main))
