"""What makes a script that runs for seconds start fast. None of it changes the results.

It applies to Spark on this machine only. On a cluster and under `spark-submit`, Spark keeps its own settings.
docs/performance.md shows where the seconds go.
"""

import socketserver
from contextlib import suppress
from functools import partialmethod
from threading import Thread
from typing import Any

from fast_spark.archive import find_archive, option_to_use
from fast_spark.java import Java

from pyspark.accumulators import AccumulatorTCPServer

SETTINGS = {
    # A script of ten seconds needs no port on the network and no web page.
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.ui.enabled": "false",
    # A table of some kilobytes: one file for each commit, one task for each step, no sampling before a sort.
    "spark.sql.leafNodeDefaultParallelism": "1",
    "spark.sql.shuffle.partitions": "1",
    "spark.databricks.delta.snapshotPartitions": "1",
}

SHORT_RUN = {
    # Generating and compiling Java code takes longer than interpreting a plan for nine rows.
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
}

READ_ONLY = {
    # Delta's source on top of its kernel reads the log without a Spark job. It can append rows, not merge or delete.
    "spark.databricks.delta.v2.enableMode": "STRICT",
}

ONE_COMPILER = "-XX:TieredStopAtLevel=1"  # the second compiler pays off after minutes

JAVA_OPTIONS: tuple[str, ...] = (
    # Outside UTC, Delta rebuilds the table's state at each commit in order to verify its checksum.
    "-Duser.timezone=UTC",
    # Java's warnings, for example about an archive that does not fit, go to Spark's log and not among the rows.
    "-Xlog:disable",
    "-Xlog:all=warning:stderr",
)


def local_settings(short_run: bool, read_only: bool = False) -> dict[str, str]:
    """Return the Spark settings for a run on this machine.

    Args:
        short_run: whether it runs for seconds.
        read_only: whether it only reads tables.
    """
    return SETTINGS | (SHORT_RUN if short_run else {}) | (READ_ONLY if short_run and read_only else {})


def fast_java_options(java: Java, short_run: bool) -> list[str]:
    """Return the Java options for a run on this machine.

    Args:
        java: the Java that runs Spark.
        short_run: whether it runs for seconds.
    """
    archive = find_archive(java)
    return [
        *JAVA_OPTIONS,
        *([ONE_COMPILER] if short_run else []),
        *([option_to_use(java, archive)] if archive else []),
    ]


def warm_up(gateway: Any) -> None:
    """Load on the other core what the first query will need, while Spark starts on this one.

    Only two libraries below Spark, which do not refer to it: with Spark's own classes the two threads could deadlock.
    """

    def load() -> None:
        # Java may end at any moment. Whatever fails here, Spark will report.
        with suppress(Exception):
            gateway.jvm.scala.reflect.runtime.package.universe()
            gateway.jvm.org.codehaus.janino.ClassBodyEvaluator().cook("int answer() { return 42; }")

    Thread(target=load, daemon=True).start()


def stop_fast() -> None:
    """Let PySpark's accumulator server check often whether to end. `stop` waits for it, half a second by default."""
    serve = partialmethod(socketserver.BaseServer.serve_forever, poll_interval=0.02)
    AccumulatorTCPServer.serve_forever = serve  # type: ignore[assignment, method-assign]
