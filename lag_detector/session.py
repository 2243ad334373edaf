"""A Spark session that speaks Delta and keeps quiet."""

import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from threading import Thread, current_thread, main_thread
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from lag_detector import startup
from lag_detector.errors import DEBUG, JAVA_ENDED, LagDetectorError
from lag_detector.java import check_java
from lag_detector.sentences import known_sentence

from delta import configure_spark_with_delta_pip
from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkRuntimeError
from pyspark.find_spark_home import _find_spark_home
from pyspark.java_gateway import launch_gateway
from pyspark.sql import SparkSession

# Everything but Delta itself comes with Spark: 13 MB to fetch instead of 95.
NOT_DELTA = "org.*:*,com.*:*,commons-*:*,io.airlift:*,javax.*:*"

ALWAYS = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    # Hive's embedded Derby would let one script run at a time.
    "spark.sql.catalogImplementation": "in-memory",
    "spark.sql.session.timeZone": "UTC",
    "spark.ui.showConsoleProgress": "false",
}


@contextmanager
def delta_session(name: str, warehouse: str, short_run: bool = True) -> Iterator[SparkSession]:
    """Open a Spark session with Delta Lake, and stop it at the end of the `with` block.

    Args:
        name: how the application is called in Spark.
        warehouse: the folder or Hadoop URI where tables without a location of their own go.
        short_run: whether it lives for seconds, so that on this machine a fast start is worth more than fast work.

    Yields:
        the session: in-memory catalog, time zone UTC, on `local[*]` unless something else names a master.

    Raises:
        LagDetectorError: no usable Java, Delta's jars cannot be had, or Spark does not start.
    """
    print("Starting Spark …", file=sys.stderr)
    with _spark_log() as log:
        spark = SparkSession(_spark_context(name, warehouse, short_run, log))
        # Spark's own handler calls Java, which may be in the middle of a call and then takes no other one, not even
        # stop(). So Ctrl-C is Python's again, and Java ends when we have ended.
        if current_thread() is main_thread():
            signal.signal(signal.SIGINT, signal.default_int_handler)
        interrupted = False
        try:
            _keep_jars(spark)
            yield spark
        except KeyboardInterrupt:
            interrupted = True
            raise
        finally:
            if not interrupted:
                spark.stop()


def _submitted() -> bool:
    """Tell whether `spark-submit` started us: then Spark runs already, with the jars it was given."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


def _named_master() -> str | None:
    """Find the master that the environment or Spark's configuration names, if any does."""
    for variable in ("SPARK_MASTER", "MASTER"):
        if os.environ.get(variable):
            return os.environ[variable]
    conf_dir = os.environ.get("SPARK_CONF_DIR") or Path(_find_spark_home(), "conf")
    defaults = Path(conf_dir, "spark-defaults.conf")
    text = os.environ.get("PYSPARK_SUBMIT_ARGS", "") + "\n"
    text += defaults.read_text() if defaults.is_file() else ""
    named = re.search(r"(?m)(?:--master[ =]+|spark\.master[ \t=]+)(\S+)", text)
    return named[1] if named else None


def _delta_jars(on_this_machine: bool) -> dict[str, str]:
    """Give the settings that put Delta's jars in front of Spark: the kept ones, else their coordinates."""
    kept = sorted(str(jar) for jar in startup.JARS.glob("*.jar"))
    if not kept:
        print("Fetching Delta's jars, once (13 MB) …", file=sys.stderr)
        builder = configure_spark_with_delta_pip(SparkSession.Builder())
        fetch = {"spark.jars.packages": builder._options["spark.jars.packages"], "spark.jars.excludes": NOT_DELTA}
        with suppress(OSError):
            startup.CACHE.mkdir(exist_ok=True)
        if os.access(startup.CACHE, os.W_OK):  # the home folder, where they would go, is not everybody's to write
            fetch["spark.jars.ivy"] = str(startup.CACHE / "ivy")
        return fetch
    if on_this_machine:
        return {"spark.driver.extraClassPath": os.pathsep.join(kept)}
    return {"spark.jars": ",".join(kept)}


def _keep_jars(spark: SparkSession) -> None:
    """Keep the jars that Spark has just fetched."""
    if _submitted() or startup.JARS.exists():
        return
    jars = spark.sparkContext.getConf().get("spark.jars", "").split(",")
    # Where we may not write, the next start fetches again. The rename is all or nothing: two scripts may do this.
    with suppress(OSError):
        startup.CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=startup.CACHE) as half_made:
            kept = Path(half_made, "jars")
            kept.mkdir()
            for jar in jars:
                shutil.copy(unquote(urlsplit(jar).path), kept)
            kept.rename(startup.JARS)


def _spark_context(name: str, warehouse: str, short_run: bool, log: IO[bytes] | None) -> SparkContext:
    settings = ALWAYS | {"spark.app.name": name, "spark.sql.warehouse.dir": warehouse}
    on_this_machine = False
    if not _submitted():
        java = check_java()
        _check_spark_home()
        _use_utf8()
        master = _named_master() or "local[*]"
        on_this_machine = re.fullmatch(r"local(\[.*])?", master) is not None
        settings |= {"spark.master": master} | _delta_jars(on_this_machine)
        settings |= startup.local_settings(java, short_run) if on_this_machine else {}
    conf = SparkConf(loadDefaults=False).setAll(list(settings.items()))
    try:
        gateway = _java(conf, log)
        if on_this_machine:
            startup.warm_up(gateway)
            startup.stop_at_once()
        return SparkContext(conf=conf, gateway=gateway)
    except PySparkRuntimeError as error:
        raise LagDetectorError(_why_not_started(log)) from error


def _java(conf: SparkConf, log: IO[bytes] | None) -> Any:
    """Start Java, from a thread that Ctrl-C does not reach.

    Cut off, PySpark would remove the folder where Java leaves its address, and a Java that finds it gone never ends.
    """
    gateway: Future[Any] = Future()

    def launch() -> None:
        try:
            gateway.set_result(launch_gateway(conf, {"stderr": log}))  # type: ignore[no-untyped-call]
        except Exception as error:
            gateway.set_exception(error)

    Thread(target=launch, daemon=True).start()
    return gateway.result()


def _check_spark_home() -> None:
    """Refuse a Spark other than the one these scripts are pinned to: it would fail later and less clearly."""
    home = os.environ.get("SPARK_HOME")
    if home and not list(Path(home, "jars").glob(f"spark-core_*-{version('pyspark')}.jar")):
        raise LagDetectorError(
            f"SPARK_HOME ({home}) leads to another Spark than the {version('pyspark')} installed here; unset SPARK_HOME"
        )


def _use_utf8() -> None:
    """Let Java read and write file names in UTF-8 where the locale is C, as Python does by itself."""
    if os.environ.get("LC_ALL") in ("C", "POSIX"):
        os.environ["LC_ALL"] = "C.UTF-8"


@contextmanager
def _spark_log() -> Iterator[IO[bytes] | None]:
    """Send the log of Spark's own process to a file that vanishes; with the debug setting, to standard error."""
    if os.environ.get(DEBUG):
        yield None
        return
    with tempfile.TemporaryFile() as log:
        yield log


def _why_not_started(log: IO[bytes] | None) -> str:
    text = ""
    if log:
        log.seek(0)
        text = log.read().decode(errors="replace")
    if known := known_sentence(text):
        return known
    causes = [line for line in text.splitlines() if re.search(r"Exception|Error", line) and "\tat " not in line]
    if not causes:
        return JAVA_ENDED
    return f"Spark did not start: {causes[0].strip().rstrip('.')} (run again with {DEBUG}=1 to see its log)"
