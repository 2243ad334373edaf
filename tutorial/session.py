"""A Spark session with Delta Lake that starts fast and prints no logs."""

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import current_thread, main_thread
from typing import IO

from tutorial import settings
from tutorial.fast_start import local_settings, stop_fast, warm_up
from tutorial.jars import jar_settings, keep_jars
from tutorial.java import find_java
from tutorial.script import progress
from tutorial.spark_process import check_spark_home, launch, spark_log, why_not_started

from lag_detector.errors import LagDetectorError

from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkRuntimeError
from pyspark.find_spark_home import _find_spark_home
from pyspark.sql import SparkSession

ALWAYS = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    # Hive's embedded Derby would let only one script run at a time.
    "spark.sql.catalogImplementation": "in-memory",
    "spark.sql.session.timeZone": "UTC",
    "spark.ui.showConsoleProgress": "false",
}


@contextmanager
def delta_session(name: str, warehouse: str | None = None, short_run: bool = True) -> Iterator[SparkSession]:
    """Open a Spark session with Delta Lake, and stop it at the end of the `with` block.

    Args:
        name: the application's name.
        warehouse: the folder or Hadoop URI for tables without a location of their own; by default the tutorial's.
        short_run: whether it runs for seconds, so that a fast start matters more than fast work.

    Yields:
        The session: in-memory catalog, time zone UTC, on `local[*]` unless a setting names another master.

    Raises:
        LagDetectorError: no usable Java, Delta's jars cannot be fetched, or Spark does not start.
    """
    submitted = settings.submitted()
    progress("Starting Spark …")
    with spark_log() as log:
        spark = SparkSession(_spark_context(name, warehouse or settings.warehouse(), submitted, short_run, log))
        # PySpark's handler of Ctrl-C calls Java, which may be in the middle of a call and then accepts no other one,
        # not even stop(). With Python's own handler Java ends when Python has ended.
        if current_thread() is main_thread():
            signal.signal(signal.SIGINT, signal.default_int_handler)
        interrupted = False
        try:
            if not submitted:
                keep_jars(spark)
            yield spark
        except KeyboardInterrupt:
            interrupted = True
            raise
        finally:
            if not interrupted:
                spark.stop()


def _spark_context(name: str, warehouse: str, submitted: bool, short_run: bool, log: IO[bytes] | None) -> SparkContext:
    conf = ALWAYS | {"spark.app.name": name, "spark.sql.warehouse.dir": warehouse}
    local = False
    if not submitted:
        java = find_java()
        check_spark_home()
        settings.use_utf8()
        master = settings.spark_master(Path(_find_spark_home(), "conf")) or "local[*]"
        local = re.fullmatch(r"local(\[.*])?", master) is not None
        conf |= {"spark.master": master} | jar_settings(local)
        if local:
            settings.use_loopback()
            conf |= local_settings(java, short_run)
    spark_conf = SparkConf(loadDefaults=False).setAll(list(conf.items()))
    try:
        gateway = launch(spark_conf, log)
        if local:
            warm_up(gateway)
            stop_fast()
        return SparkContext(conf=spark_conf, gateway=gateway)
    except PySparkRuntimeError as error:
        raise LagDetectorError(why_not_started(log)) from error
