"""Every environment variable that this package reads, and Spark's configuration files."""

import locale
import os
import re
import shlex
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fast_spark.errors import SparkStartError

CACHE = (Path(__file__).parents[1] / ".cache").resolve()  # an archive fits the real path only
DEBUG = "LAG_DETECTOR_DEBUG"
LOOPBACK = "127.0.0.1"
JAVA_OPTIONS = ("JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS")  # Java itself reads them


def debug() -> bool:
    """Return whether to show Spark's log and tracebacks."""
    return bool(os.environ.get(DEBUG))


def java_home() -> str | None:
    """Return the folder of the Java to use, if `JAVA_HOME` names one."""
    return os.environ.get("JAVA_HOME") or None


def spark_home() -> str | None:
    """Return the folder of the Spark to use, if `SPARK_HOME` names one."""
    return os.environ.get("SPARK_HOME") or None


def is_submitted() -> bool:
    """Return whether `spark-submit` started this process. Then Spark runs already, with its own settings.

    Raises:
        SparkStartError: the Spark that it names is gone, or Spark Connect is selected.
    """
    for variable in ("SPARK_REMOTE", "SPARK_CONNECT_MODE_ENABLED"):
        if os.environ.get(variable):
            raise SparkStartError(f"{variable} selects Spark Connect, which is not used here; unset {variable}")
    port = os.environ.get("PYSPARK_GATEWAY_PORT")
    if port is None:
        return False
    try:
        socket.create_connection((LOOPBACK, int(port)), timeout=5).close()
    except (OSError, OverflowError, ValueError) as error:
        raise SparkStartError(
            f"PYSPARK_GATEWAY_PORT ({port}) is left over from a Spark session that has ended; unset "
            "PYSPARK_GATEWAY_PORT and PYSPARK_GATEWAY_SECRET"
        ) from error
    return True


def spark_master(default_conf_dir: Path) -> str | None:
    """Return the Spark master that the environment or Spark's configuration names, if any.

    Args:
        default_conf_dir: Spark's own configuration folder, used unless `SPARK_CONF_DIR` names another one.
    """
    for variable in ("SPARK_MASTER", "MASTER"):
        if os.environ.get(variable):
            return os.environ[variable]
    arguments = shlex.split(os.environ.get("PYSPARK_SUBMIT_ARGS", ""))
    submitted = re.findall(r"(?:--master[ =]|--conf[ =]spark\.master=)(\S+)", " ".join(arguments))
    defaults = Path(os.environ.get("SPARK_CONF_DIR") or default_conf_dir, "spark-defaults.conf")
    text = defaults.read_text() if defaults.is_file() else ""
    configured = re.findall(r"(?m)^[ \t]*spark\.master(?:[ \t]*[=:][ \t]*|[ \t]+)(\S+)", text)
    return next(iter(submitted[-1:] + configured[-1:]), None)


def spark_is_configured(conf_dir: Path) -> bool:
    """Return whether the environment or a file configures Spark, so that Spark's own launcher must read it.

    Args:
        conf_dir: Spark's own configuration folder.
    """
    read_elsewhere = {"SPARK_HOME", "SPARK_MASTER", "SPARK_LOCAL_IP", "SPARK_LOCAL_DIRS", *JAVA_OPTIONS}
    files = [file for file in conf_dir.glob("*") if not file.name.startswith(".") and file.suffix != ".template"]
    return bool(files or spark_variables() - read_elsewhere)


def spark_variables() -> set[str]:
    """Return the environment variables that configure Spark or its Java."""
    of_pyspark = {"SPARK_AUTH_SOCKET_TIMEOUT", "SPARK_BUFFER_SIZE"}  # it sets them, and child processes inherit them
    others = {"PYSPARK_SUBMIT_ARGS", "HADOOP_CONF_DIR", "YARN_CONF_DIR", *JAVA_OPTIONS}
    names = {name for name in os.environ if name.startswith("SPARK_") or name in others} - of_pyspark
    if os.environ.get("SPARK_LOCAL_IP") == LOOPBACK:  # inherited from a parent's use_loopback
        names.discard("SPARK_LOCAL_IP")
    return {name for name in names if os.environ[name]}


def use_local_jars(jars: list[Path]) -> None:
    """Let Spark on this machine append these jars to its class path, next to those that you add.

    A class path in Spark's settings would replace yours, or yours this one.
    """
    others = os.environ.get("SPARK_DIST_CLASSPATH")
    os.environ["SPARK_DIST_CLASSPATH"] = os.pathsep.join([*map(str, jars), *([others] if others else [])])


@contextmanager
def gateway_address(port: int, secret: str) -> Iterator[None]:
    """Pass the address of a running Java to PySpark. Only in the `with` block: child processes must not inherit it."""
    os.environ |= {"PYSPARK_GATEWAY_PORT": str(port), "PYSPARK_GATEWAY_SECRET": secret}
    try:
        yield
    finally:
        del os.environ["PYSPARK_GATEWAY_PORT"], os.environ["PYSPARK_GATEWAY_SECRET"]


def use_loopback() -> None:
    """Keep Spark from looking up this machine's name, which fails in some containers."""
    os.environ.setdefault("SPARK_LOCAL_IP", LOOPBACK)


def use_utf8() -> None:
    """Let Java read and write file names in UTF-8 where the locale is C or missing, as Python does by itself."""
    if sys.getfilesystemencoding() == "utf-8" and locale.nl_langinfo(locale.CODESET) != "UTF-8":
        os.environ["LC_ALL"] = "C.UTF-8"
