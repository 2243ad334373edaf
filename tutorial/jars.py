"""Delta's jars: fetch them once, keep them next to the scripts. Resolving them costs seconds at every start."""

import os
import shutil
import tempfile
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tutorial.script import progress
from tutorial.settings import REPOSITORY, use_local_jars

from delta import configure_spark_with_delta_pip
from pyspark.sql import SparkSession

CACHE = REPOSITORY / ".cache"
# Named after the pins: other pins need other jars.
JARS = CACHE / f"delta-{version('delta-spark')}-spark-{version('pyspark')}"

# All but Delta itself comes with Spark: 13 MB to fetch instead of 95.
EXCLUDES = "org.*:*,com.*:*,commons-*:*,io.airlift:*,javax.*:*"


def jar_settings(local: bool) -> dict[str, str]:
    """Add Delta's jars: the kept ones, else their Maven coordinates. Return the Spark settings that it takes.

    Args:
        local: whether Spark runs on this machine only; else the executors get the jars too.
    """
    kept = sorted(JARS.glob("*.jar"))
    if not kept:
        progress("Fetching Delta's jars, once (13 MB) …")
        builder = configure_spark_with_delta_pip(SparkSession.Builder())
        packages = builder._options["spark.jars.packages"]
        fetch = {"spark.jars.packages": packages, "spark.jars.excludes": EXCLUDES}
        with suppress(OSError):
            CACHE.mkdir(exist_ok=True)
        if os.access(CACHE, os.W_OK):  # by default they go to the home folder, which may be read-only
            fetch["spark.jars.ivy"] = str(CACHE / "ivy")
        return fetch
    if local:
        use_local_jars(kept)
        return {}
    return {"spark.jars": ",".join(map(str, kept))}


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
