"""Why Spark did not start, as one sentence that names the cause and the fix."""

import re
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import IO, NoReturn

from fast_spark.environment import CACHE, DEBUG, debug
from fast_spark.errors import SparkStartError

SPARK_ENDED = "Spark's own process ended unexpectedly (killed, or out of memory); run the script again to continue"

# Spark's process is gone. Why, only its log can say.
ENDED = (
    r"Answer from Java side is empty|Error while (?:sending or receiving|obtaining a new communication channel)"
    r"|trying to connect to the Java server|\[Errno \d+] Connection refused|No active or default Spark session"
)

# A pattern for a cause that Spark or Java names → our sentence. The first match wins.
START_CAUSES = {
    r"Failed to create local dir in (?P<folder>[^\n]+)\. Ignoring.*Failed to create any local dir": (
        "Spark cannot write its temporary files in {folder}; set SPARK_LOCAL_DIRS to a folder with free space that you "
        "can write to"
    ),
    r"Failed to create a temp directory \(under (?P<folder>[^\n]+)\) after": (
        "Java cannot write its temporary files in {folder}; add -Djava.io.tmpdir=FOLDER to JAVA_TOOL_OPTIONS, with a "
        "folder that you can write to"
    ),
    r"(?P<cause>Could not reserve enough space[^\n]*|Could not allocate compressed class space[^\n]*"
    r"|insufficient memory for the Java Runtime Environment|unable to create native thread)": (
        "Java does not get the memory or the threads that it needs ({cause}); ask for less in SPARK_DRIVER_MEMORY or "
        "in Java's options, or raise the limit, which ulimit -a shows or your container sets"
    ),
    r"A fatal error has been detected by the Java Runtime": (
        "Java itself crashed; delete {cache} and run make setup, or install another build of Java"
    ),
    r"'JavaPackage' object is not callable|Failed to find the data source: delta"
    r"|(?:NoClassDefFoundError|ClassNotFoundException): (?:io.delta|org.apache.spark.sql.delta)": (
        "Spark does not find all of Delta's classes; with spark-submit, give it the option --packages; otherwise "
        "delete {cache}, which has its jars, and run make setup"
    ),
    r"ClassNotFoundException: (?:Class )?(?P<name>[\w.$]+)": (
        "Spark's configuration names the class {name}, which it does not find; correct it in spark-defaults.conf, or "
        "add its jar with spark.driver.extraClassPath"
    ),
    r"Master must either be|Could not parse Master URL": (
        "Spark does not know such a master; set SPARK_MASTER to local[*] or spark://host:7077, or unset it"
    ),
    r"PKIX path building failed": (
        "Java does not trust the certificate of Maven Central, or of a proxy in between; set SSL_CERT_FILE to a PEM "
        "file that has it, or JAVA_TOOL_OPTIONS to -Djavax.net.ssl.trustStore=FILE"
    ),
    r"unresolved dependency|download failed": (
        "Delta's jars could not be fetched from Maven Central; run the script again with a network connection, which "
        "is only needed once"
    ),
    r"basedir must be absolute|invalid null input: name": (
        "Spark needs a user with a name, and this user id has none; add a line for it to /etc/passwd, or run as "
        "another user"
    ),
    r"Only one SparkContext should be running": (
        "PYSPARK_GATEWAY_PORT is inherited from a program with a Spark session of its own; unset PYSPARK_GATEWAY_PORT "
        "and PYSPARK_GATEWAY_SECRET"
    ),
    r"All masters are unresponsive|Cannot call methods on a stopped SparkContext": (
        "Spark stopped by itself, as it does when no Spark master answers; check that the master runs and that "
        "SPARK_MASTER is its address"
    ),
}


def run(main: Callable[[], None]) -> NoReturn:
    """Run a program of this package and exit: 0 when it is done, 1 after an error, 130 after Ctrl-C."""
    try:
        main()
        sys.exit()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if debug():
            raise
        text = str(error)
        known = text if isinstance(error, SparkStartError) else start_message(text) or first_cause(text)
        sys.exit(f"Error: {known or type(error).__name__}.")


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


def start_message(text: str) -> str | None:
    """Return the sentence for what Spark's log or an error says, or None if there is none."""
    for pattern, message in START_CAUSES.items():
        if found := re.search(pattern, without_frames(text), re.DOTALL):
            return message.format(**found.groupdict(), cache=CACHE)
    return None


def without_frames(text: str) -> str:
    """Return the messages of a Java stack trace, without the places where they were thrown."""
    return "\n".join(line for line in text.splitlines() if not re.match(r"\s+(at |\.\.\. \d+ more)", line))


def first_cause(text: str) -> str:
    """Return the first line of a Java or Python error that says something, and its root cause if that says more."""
    lines = [line.strip().rstrip(".") for line in without_frames(text).splitlines()]
    noise = ("An error occurred while calling", "Traceback", "JVM stacktrace")
    first = next((line.removeprefix(": ") for line in lines if line and not line.startswith(noise)), "")
    root = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")][-1:]
    cause = ": ".join([first, *(line for line in root if line.partition(": ")[2] not in first or ": " not in line)])
    return re.sub(r"(?:[a-z]\w*\.)+[A-Z]\w*(?:Exception|Error): ", "", cause)  # what follows says more
