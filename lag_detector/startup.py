"""What makes a script that lives for seconds start fast. Nothing in here changes what it does.

All of it is for a Spark inside this machine only; on a cluster and under `spark-submit` Spark keeps its own settings.
What a run of the writer would take longer without each of them, as measured by `make bench`: kept jars 6.3 s,
class archive 4.4 s, Java in UTC 4.0 s (outside UTC), one compiler 1.9 s, warm-up 0.3 s, stop at once 0.2 s. Code
generation matters to the reader and the consumer, not to the writer.
"""

import hashlib
import socketserver
from contextlib import suppress
from functools import partialmethod
from importlib.metadata import version
from pathlib import Path
from shlex import quote
from threading import Thread
from typing import Any

from lag_detector.java import Java

from pyspark.accumulators import AccumulatorTCPServer
from pyspark.find_spark_home import _find_spark_home

# Resolving Delta's jars costs seconds at every start, so we keep them beside the scripts. The folder is
# named after the pins: new pins fetch new jars.
CACHE = Path(__file__).parents[1] / ".cache"
JARS = CACHE / f"delta-{version('delta-spark')}-spark-{version('pyspark')}"

SETTINGS = {
    # Nobody opens a port to the network, or looks at a page, in ten seconds.
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.ui.enabled": "false",
    # A table of some kilobytes: one file a commit, and no hundreds of empty tasks.
    "spark.sql.leafNodeDefaultParallelism": "1",
    "spark.sql.shuffle.partitions": "2",
    "spark.databricks.delta.snapshotPartitions": "2",
}

SHORT_RUN = {
    # To generate and compile Java code takes longer than to interpret a plan for nine rows.
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
}

ONE_COMPILER = "-XX:TieredStopAtLevel=1"  # the second one pays off after minutes

JAVA_OPTIONS: tuple[str, ...] = (
    # Outside UTC Delta rebuilds the table's state at each commit, to verify what it noted of it.
    "-Duser.timezone=UTC",
    # Java's warnings, on an archive that does not fit for example, go to Spark's log and not among the rows.
    "-Xlog:disable",
    "-Xlog:all=warning:stderr",
)


def local_settings(java: Java, short_run: bool) -> dict[str, str]:
    """Give the settings of Spark for a run on this machine.

    Args:
        java: the Java that is going to run Spark.
        short_run: whether it lives for seconds.
    """
    archive = class_archive(java)
    options = [*JAVA_OPTIONS, *([ONE_COMPILER] if short_run else [])]
    options += [quote(f"-XX:SharedArchiveFile={archive}")] if archive else []
    # Those that the reader sets, as spark.driver.extraJavaOptions, come after these and win.
    return SETTINGS | (SHORT_RUN if short_run else {}) | {"spark.driver.defaultJavaOptions": " ".join(options)}


def class_archive(java: Java) -> Path | None:
    """Find the class archive for this Java, this Spark and this Delta; None where there is none that is whole.

    Most of a start is reading and checking 14,000 classes. Java keeps them ready to use in an archive, which fits
    one build of Java and the very same jars. Java itself checks that, and runs on without an archive that does not
    fit; but one that is cut off would end it, so the file's name has its size.

    Args:
        java: the Java that is going to run Spark.
    """
    for file in CACHE.glob(f"{archive_stem(java)}-*.jsa"):
        with suppress(OSError):  # another set-up may have removed it just now
            if file.stem.endswith(f"-{file.stat().st_size}"):
                return file
    return None


def archive_stem(java: Java) -> str:
    """Give the name of the class archive, but for its size: all that it must fit is in it.

    Args:
        java: the Java that is going to run Spark.
    """
    told = hashlib.sha256(java.build.encode())
    for jar in [*sorted(JARS.glob("*.jar")), *sorted(Path(_find_spark_home(), "jars").glob("*.jar"))]:
        file = jar.stat()
        told.update(f"{jar} {file.st_size} {file.st_mtime_ns}".encode())
    return f"classes-java-{java.version}-{told.hexdigest()[:16]}"


def warm_up(gateway: Any) -> None:
    """Let the other core load what the first query waits for, while this one starts Spark.

    Two libraries below Spark, which do not know it: were they Spark's own classes, the two threads could wait for
    each other for ever.
    """

    def load() -> None:
        # Whatever happens here, Spark will meet it and tell: Java may end at any moment.
        with suppress(Exception):
            gateway.jvm.scala.reflect.runtime.package.universe()
            gateway.jvm.org.codehaus.janino.ClassBodyEvaluator().cook("int answer() { return 42; }")

    Thread(target=load, daemon=True).start()


def stop_at_once() -> None:
    """Let PySpark's server of accumulators look often whether it is to end: `stop` waits for it, half a second."""
    serve = partialmethod(socketserver.BaseServer.serve_forever, poll_interval=0.02)
    AccumulatorTCPServer.serve_forever = serve  # type: ignore[assignment, method-assign]
