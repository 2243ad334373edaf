"""Delta's jars: fetch them once, keep them next to the scripts. Resolving them costs seconds at every start."""

import os
import shutil
import tempfile
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tutorial.script import progress
from tutorial.settings import REPOSITORY

from delta import configure_spark_with_delta_pip
from pyspark.sql import SparkSession

CACHE = REPOSITORY / ".cache"
# Named after the pins: other pins need other jars.
JARS = CACHE / f"delta-{version('delta-spark')}-spark-{version('pyspark')}"

# All but Delta itself comes with Spark: 13 MB to fetch instead of 95.
EXCLUDES = "org.*:*,com.*:*,commons-*:*,io.airlift:*,javax.*:*"


def kept_jars() -> list[Path]:
    """Return Delta's jars, or nothing if they are still to be fetched."""
    return sorted(JARS.glob("*.jar"))


def fetch_settings() -> dict[str, str]:
    """Return the Spark settings that let Spark fetch Delta's jars."""
    progress("Fetching Delta's jars, once (13 MB) …")
    packages = configure_spark_with_delta_pip(SparkSession.Builder())._options["spark.jars.packages"]
    fetch = {"spark.jars.packages": packages, "spark.jars.excludes": EXCLUDES}
    with suppress(OSError):
        CACHE.mkdir(exist_ok=True)
    if os.access(CACHE, os.W_OK):  # by default they go to the home folder, which may be read-only
        fetch["spark.jars.ivy"] = str(CACHE / "ivy")
    return fetch


def keep_jars(spark: SparkSession) -> None:
    """Keep the jars that Spark has just fetched."""
    if JARS.exists():
        return
    jars = spark.sparkContext.getConf().get("spark.jars", "").split(",")
    # If the folder is read-only, the next start fetches again. A rename is atomic, so two scripts may do this at once.
    with suppress(OSError):
        CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            kept = Path(folder, "jars")
            kept.mkdir()
            for jar in jars:
                shutil.copy(unquote(urlsplit(jar).path), kept)
            kept.rename(JARS)
