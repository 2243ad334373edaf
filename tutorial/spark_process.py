"""Start Spark's own process by Spark's launcher, and explain why it did not start."""

import re
import sys
import tempfile
from collections.abc import Collection, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from threading import Thread
from typing import IO, Any

from tutorial.error_messages import ENDED, SPARK_ENDED, first_cause, start_message
from tutorial.settings import DEBUG, debug, spark_home

from lag_detector.errors import LagDetectorError

from pyspark import SparkConf
from pyspark.java_gateway import launch_gateway


def launch(conf: SparkConf, log: IO[bytes] | None) -> Any:
    """Start Java by Spark's own launcher, and return PySpark's gateway to it.

    In a thread that Ctrl-C does not reach. Interrupted, PySpark would delete the folder in which Java leaves its
    address, and a Java that cannot find that folder never ends.
    """
    gateway: Future[Any] = Future()
    output = output_of_java(log)

    def work() -> None:
        try:
            gateway.set_result(launch_gateway(conf, {"stdout": output, "stderr": output}))  # type: ignore[no-untyped-call]
        except Exception as error:
            gateway.set_exception(error)

    Thread(target=work, daemon=True).start()
    return gateway.result()


def output_of_java(log: IO[bytes] | None) -> IO[bytes] | int:
    """Return where Java's output goes: never to standard output, which is for results."""
    return log or sys.stderr.fileno()


def check_spark_home() -> None:
    """Reject another Spark than the pinned one, which would fail later and less clearly."""
    home = spark_home()
    if home and not list(Path(home, "jars").glob(f"spark-core_*-{version('pyspark')}.jar")):
        raise LagDetectorError(
            f"SPARK_HOME ({home}) is another Spark than the installed {version('pyspark')}; unset SPARK_HOME"
        )


@contextmanager
def spark_log() -> Iterator[IO[bytes] | None]:
    """Yield a temporary file for the log of Spark's process, or None to show the log when debugging."""
    if debug():
        yield None
        return
    with tempfile.TemporaryFile() as log:
        yield log


def read_log(log: IO[bytes] | None) -> str:
    """Return what Spark's process has logged so far, unless it was shown."""
    if log is None:
        return ""
    log.seek(0)
    return log.read().decode(errors="replace")


def why_not_started(error: Exception, log: IO[bytes] | None, variables: Collection[str]) -> str:
    """Return one sentence for why Spark did not start.

    Args:
        error: what PySpark raised. If it only says that Java has ended, the log says why.
        log: the log of Spark's process.
        variables: the environment variables that configure Spark.
    """
    ended = re.search(f"JAVA_GATEWAY_EXITED|{ENDED}", str(error))
    text = _errors_in(read_log(log)) if ended else str(error)
    if message := start_message(text):
        return message
    cause = first_cause(text)
    if not cause:
        return SPARK_ENDED if ended else type(error).__name__
    check = f"check {' and '.join(sorted(variables))}, or " if variables else ""
    return f"Spark did not start: {cause}; {check}run again with {DEBUG}=1 to see its log"


def _errors_in(log: str) -> str:
    """Return the lines of the log that say what went wrong. Java's own follow a line that does not."""
    log = log.replace("Error occurred during initialization of VM\n", "Error: ")
    says_why = r"Exception|Error|ERROR|Unrecognized|Invalid|Conflicting|Multiple|Could not|[Nn]ot found|[Ff]atal|memory"
    noise = r"\s+at |Picked up|NOTE:|Error: Could not create the Java|\S+ \S+ (?:WARN|INFO) "
    prefix = r'(?:\S+ \S+ ERROR \w+: |Error: |Exception in thread "[^"]*" |# )'
    lines = [line for line in log.splitlines() if re.search(says_why, line) and not re.match(noise, line)]
    return "\n".join(re.sub(f"^{prefix}", "", line) for line in lines)
