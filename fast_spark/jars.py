"""Delta's jars: fetch them once, keep them next to the scripts. Resolving them costs seconds at every start."""

import os
import shutil
import tempfile
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from fast_spark.console import progress
from fast_spark.environment import CACHE

from delta import configure_spark_with_delta_pip
from pyspark.sql import SparkSession

# Named after the pins: other pins need other jars.
JARS = CACHE / f"delta-{version('delta-spark')}-spark-{version('pyspark')}"

# All but Delta itself comes with Spark: 13 MB to fetch instead of 95.
EXCLUDES = "org.*:*,com.*:*,commons-*:*,io.airlift:*,javax.*:*"


def kept_jars() -> list[Path]:
    """Return Delta's jars, or nothing if they are still to be fetched."""
    return sorted(JARS.glob("*.jar"))


def fetch_settings() -> dict[str, str]:
    """Return the Spark settings that let Spark's launcher fetch Delta's jars."""
    progress("Fetching Delta's jars, once (13 MB) …")
    packages = configure_spark_with_delta_pip(SparkSession.Builder())._options["spark.jars.packages"]
    fetch = {"spark.jars.packages": packages, "spark.jars.excludes": EXCLUDES}
    with suppress(OSError):
        CACHE.mkdir(exist_ok=True)
    if os.access(CACHE, os.W_OK):  # by default they go to the home folder, which may be read-only
        fetch["spark.jars.ivy"] = str(CACHE / "ivy")
    return fetch


def fetch_jars(gateway: Any) -> list[Path]:
    """Fetch Delta's jars and keep them. Takes a Java, but no Spark session.

    Args:
        gateway: PySpark's gateway to a Java with Spark's own jars.

    Raises:
        Py4JJavaError: they could not be fetched.

    Source: `DependencyUtils`, which Spark's launcher calls too.
    """
    fetch = fetch_settings()
    jvm = gateway.jvm
    fetched = jvm.org.apache.spark.util.DependencyUtils.resolveMavenDependencies(
        True, EXCLUDES, fetch["spark.jars.packages"], None, fetch.get("spark.jars.ivy"), jvm.scala.Option.empty()
    )
    jars = [Path(fetched.apply(number)) for number in range(fetched.size())]
    keep_jars(jars)
    return kept_jars() or jars


def jars_of(spark: SparkSession) -> list[Path]:
    """Return the jars that Spark's launcher has added."""
    jars = spark.sparkContext.getConf().get("spark.jars", "")
    return [Path(unquote(urlsplit(jar).path)) for jar in jars.split(",")]


def keep_jars(jars: list[Path]) -> None:
    """Copy jars that were fetched, unless they are kept already."""
    if JARS.exists():
        return
    # If the folder is read-only, the next start fetches again. A rename is atomic, so two scripts may do this at once.
    with suppress(OSError):
        CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            kept = Path(folder, "jars")
            kept.mkdir()
            for jar in jars:
                shutil.copy(jar, kept)
            kept.rename(JARS)
