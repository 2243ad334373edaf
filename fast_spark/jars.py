"""Delta's jars: fetch them once, keep them next to the scripts. Resolving them costs seconds at every start."""

import hashlib
import os
import shutil
import ssl
import tempfile
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from fast_spark.console import progress
from fast_spark.environment import CACHE
from fast_spark.errors import SparkStartError

from delta import configure_spark_with_delta_pip
from pyspark.sql import SparkSession

# Named after the pins: other pins need other jars.
JARS = CACHE / f"delta-{version('delta-spark')}-spark-{version('pyspark')}"

SUMS = Path(__file__).with_name("jars.sha256")  # to check: sha256sum -c

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
        SparkStartError: one of them is not the pinned one.

    Source: `DependencyUtils`, which Spark's launcher calls too.
    """
    fetch = fetch_settings()
    jvm = gateway.jvm
    _trust_what_python_trusts(jvm)
    fetched = jvm.org.apache.spark.util.DependencyUtils.resolveMavenDependencies(
        True, EXCLUDES, fetch["spark.jars.packages"], None, fetch.get("spark.jars.ivy"), jvm.scala.Option.empty()
    )
    jars = [Path(fetched.apply(number)) for number in range(fetched.size())]
    keep_jars(jars)
    return kept_jars() or jars


def _trust_what_python_trusts(jvm: Any) -> None:
    """Let this Java trust the authorities that Python and pip trust, such as that of a proxy.

    A Java from PyPI brings its own. Your `-Djavax.net.ssl.trustStore` wins.
    """
    bundle = ssl.get_default_verify_paths().cafile
    if bundle is None or jvm.System.getProperty("javax.net.ssl.trustStore"):
        return
    store = jvm.java.security.KeyStore.getInstance(jvm.java.security.KeyStore.getDefaultType())
    store.load(None, None)
    certificates = jvm.java.security.cert.CertificateFactory.getInstance("X.509")
    for number, certificate in enumerate(certificates.generateCertificates(jvm.java.io.FileInputStream(bundle))):
        store.setCertificateEntry(str(number), certificate)
    factory = jvm.javax.net.ssl.TrustManagerFactory
    trust = factory.getInstance(factory.getDefaultAlgorithm())
    trust.init(store)
    context = jvm.javax.net.ssl.SSLContext.getInstance("TLS")
    context.init(None, trust.getTrustManagers(), None)
    jvm.javax.net.ssl.SSLContext.setDefault(context)
    jvm.javax.net.ssl.HttpsURLConnection.setDefaultSSLSocketFactory(context.getSocketFactory())


def jars_of(spark: SparkSession) -> list[Path]:
    """Return the jars that Spark's launcher has added."""
    jars = spark.sparkContext.getConf().get("spark.jars", "")
    return [Path(unquote(urlsplit(jar).path)) for jar in jars.split(",")]


def keep_jars(jars: list[Path]) -> None:
    """Copy Delta's jars among these, unless they are kept already.

    Raises:
        SparkStartError: one of them is not the pinned one.
    """
    if JARS.exists():
        return
    sums = {name: checksum for checksum, name in map(str.split, SUMS.read_text().splitlines())}
    jars = [jar for jar in jars if jar.name in sums]  # not those that you have added
    if len(jars) < len(sums):
        return
    for jar in jars:
        if hashlib.sha256(jar.read_bytes()).hexdigest() != sums[jar.name]:
            raise SparkStartError(
                f"{jar} is damaged, or not the one of Maven Central: its SHA-256 sum is not the pinned one; delete it "
                "and run make setup"
            )
    # If the folder is read-only, the next start fetches again. A rename is atomic, so two scripts may do this at once.
    with suppress(OSError):
        CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            kept = Path(folder, "jars")
            kept.mkdir()
            for jar in jars:
                shutil.copy(jar, kept)
            kept.rename(JARS)
