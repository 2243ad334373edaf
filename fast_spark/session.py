"""A Spark session with Delta Lake that starts fast and prints no logs."""

import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from threading import current_thread, main_thread
from typing import IO

from fast_spark import environment
from fast_spark.console import progress
from fast_spark.errors import SparkStartError
from fast_spark.failure import first_cause, read_log, spark_log, start_message, why_not_started
from fast_spark.jars import fetch_jars, fetch_settings, jars_of, keep_jars, kept_jars
from fast_spark.java import Java, check_launcher_starts, find_java
from fast_spark.launch import check_spark_home, launch_by_spark, launch_directly
from fast_spark.tuning import fast_java_options, local_settings, stop_fast, warm_up

from py4j.protocol import Py4JJavaError
from pyspark import SparkConf, SparkContext
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
def delta_session(
    name: str, warehouse: str, short_run: bool = True, read_only: bool = False, java_options: Sequence[str] = ()
) -> Iterator[SparkSession]:
    """Open a Spark session with Delta Lake, and stop it at the end of the `with` block.

    Args:
        name: the application's name.
        warehouse: the folder or Hadoop URI for tables without a location of their own.
        short_run: whether it runs for seconds, so that a fast start matters more than fast work.
        read_only: whether it only reads tables, for which a short run has a faster way.
        java_options: additional options for Java on this machine.

    Yields:
        The session: in-memory catalog, time zone UTC, on `local[*]` unless a setting names another master.

    Raises:
        SparkStartError: no usable Java, Delta's jars cannot be fetched, or Spark does not start.
    """
    submitted, variables = environment.is_submitted(), environment.spark_variables()
    conf = SparkConf(loadDefaults=False).setAll(list(ALWAYS.items())).setAppName(name)
    conf.set("spark.sql.warehouse.dir", f"{warehouse}/")  # a bucket alone is no path
    progress("Starting Spark …")
    with spark_log() as log:
        try:
            context = SparkContext(conf=conf) if submitted else _start(conf, short_run, read_only, java_options, log)
        except SparkStartError:
            raise
        except Exception as error:
            raise SparkStartError(why_not_started(error, log, variables)) from error
        spark = SparkSession(context)
        # PySpark's handler of Ctrl-C calls Java, which may be in the middle of a call and then accepts no other one,
        # not even stop(). With Python's own handler Java ends when Python has ended.
        if current_thread() is main_thread():
            signal.signal(signal.SIGINT, signal.default_int_handler)
        interrupted = False
        try:
            if not submitted:
                keep_jars(jars_of(spark))
            yield spark
        except KeyboardInterrupt:
            interrupted = True
            raise
        finally:
            if not interrupted:
                spark.stop()


def needs_launcher() -> bool:
    """Return whether Spark's own launcher must start Java: for a cluster, or for settings that only it reads."""
    conf_dir = _conf_dir()
    return not _is_local(environment.spark_master(conf_dir)) or environment.spark_is_configured(conf_dir)


def _start(
    conf: SparkConf, short_run: bool, read_only: bool, java_options: Sequence[str], log: IO[bytes] | None
) -> SparkContext:
    """Start Spark on this machine, or for the cluster that a setting names."""
    check_spark_home()
    environment.use_utf8()
    java, jars, master = find_java(), kept_jars(), environment.spark_master(_conf_dir())
    conf.setMaster(master or "local[*]")
    direct = not needs_launcher()
    if not direct:
        check_launcher_starts(java)
    if not jars and direct:
        jars = _fetch_jars(java, log)
    elif not jars:
        conf.setAll(list(fetch_settings().items()))
    if not _is_local(master):
        if jars:
            conf.set("spark.jars", ",".join(map(str, jars)))
        return SparkContext(conf=conf, gateway=launch_by_spark(conf, log))

    environment.use_loopback()
    conf.setAll(list(local_settings(short_run, read_only).items()))
    options = [*fast_java_options(java, short_run), *java_options]
    if direct:
        gateway = launch_directly(java, options, jars, log)
    else:
        environment.use_local_jars(jars)
        # Your own options, in spark.driver.extraJavaOptions, come after these and win.
        conf.set("spark.driver.defaultJavaOptions", " ".join(map(quote, options)))
        gateway = launch_by_spark(conf, log)
    warm_up(gateway)
    stop_fast()
    return SparkContext(conf=conf, gateway=gateway)


def _fetch_jars(java: Java, log: IO[bytes] | None) -> list[Path]:
    """Fetch Delta's jars with a Java of its own, which ends afterwards."""
    gateway = launch_directly(java, [], [], log)
    try:
        return fetch_jars(gateway)
    except Py4JJavaError as error:
        # Here, because the error's text comes from this Java. The log says why a server did not answer.
        text = f"{error}\n{read_log(log)}"
        raise SparkStartError(start_message(text) or first_cause(text)) from error
    finally:
        gateway.shutdown()
        gateway.proc.stdin.close()
        gateway.proc.wait()


def _is_local(master: str | None) -> bool:
    return re.fullmatch(r"local(\[.*])?", master or "local") is not None


def _conf_dir() -> Path:
    return Path(_find_spark_home(), "conf")
