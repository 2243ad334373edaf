"""Turn what Spark, Delta and Java say into one sentence that names the cause and the fix."""

import re
import shlex
from collections.abc import Callable

from tutorial.checkpoint import damage
from tutorial.settings import DEBUG, REPOSITORY, checkpoint_location, table_location, warehouse

from lag_detector.errors import LagDetectorError, PushgatewayError

START_OVER = "start over with python create_table.py"
READ_ONLY = (
    "the warehouse cannot be written by this user; set VISITS_WAREHOUSE to a folder that you can write to, or change "
    "the permissions"
)
ANOTHER_FOLDER = "it was left alone; set VISITS_WAREHOUSE to another folder, or move it away if it is yours"
ANOTHER_TABLE = (
    "{table} holds another table than the tutorial's, or its log does not show its columns; " + ANOTHER_FOLDER
)
SPARK_ENDED = "Spark's own process ended unexpectedly (killed, or out of memory); run the script again to continue"
READ_AGAIN = "set it aside with {set_aside} and run the consumer again, which then reads the table from the beginning"
LOG_DAMAGED = (
    "a file of the table's log in {table}/_delta_log is damaged or missing; restore it from a copy, or " + START_OVER
)
CONTINUE = (
    'to continue without them, add .option("skipChangeCommits", "true") after .readStream in visits_consumer.py; '
    "to read the table again as it is now, set the checkpoint aside with {set_aside}; or " + START_OVER
)
CHECKPOINT_DAMAGED = "the consumer's checkpoint cannot be used: {damage}; " + READ_AGAIN
CHECKPOINT_UNCLEAR = (
    "Spark cannot use the consumer's checkpoint in {checkpoint}, which looks complete ({cause}); run the script again "
    f"with {DEBUG}=1 to see where it fails"
)
START_GATEWAY = (
    "check that it runs (docker compose up -d --wait) and that PUSHGATEWAY_URL is its address, then run the script "
    "again"
)
REJECTED = "fix what its answer names, then run the script again"

# Spark's process is gone. Why, only its log can say.
ENDED = (
    r"Answer from Java side is empty|Error while (?:sending or receiving|obtaining a new communication channel)"
    r"|trying to connect to the Java server|\[Errno \d+] Connection refused|No active or default Spark session"
)

# A pattern for a cause that Spark, Delta, Java or Python names → our sentence. The first match wins.
# Why Spark does not start. It has not touched the warehouse yet, so that the sentences below would be false.
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
        "Spark does not find all of Delta's classes; delete {cache}, which has its jars, and run make setup, or give "
        "spark-submit the option --packages"
    ),
    r"ClassNotFoundException: (?:Class )?(?P<name>[\w.$]+)": (
        "Spark's configuration names the class {name}, which it does not find; correct it in spark-defaults.conf, or "
        "add its jar with spark.driver.extraClassPath"
    ),
    r"Master must either be|Could not parse Master URL": (
        "Spark does not know such a master; set SPARK_MASTER to local[*] or spark://host:7077, or unset it"
    ),
    r"PKIX path building failed": (
        "Java does not trust the certificate of Maven Central, or of a proxy in between; set JAVA_TOOL_OPTIONS to "
        "-Djavax.net.ssl.trustStore=FILE, with a trust store that has it"
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

# Why a step fails. A cause that can be behind any other one comes first: a full disk also damages files.
CAUSES = {
    r"No space left on device": (
        "a disk is full, the warehouse's or that of Spark's temporary files (SPARK_LOCAL_DIRS, by default /tmp); free "
        "some space and run the script again"
    ),
    r"Permission denied|AccessControlException|Read-only file system|Operation not permitted": READ_ONLY,
    r"\[DELTA_SOURCE_TABLE_IGNORE_CHANGES].*?for example (?P<what>\w+).*?at version (?P<version>\d+)": (
        "version {version} of the table changed existing rows ({what}), and a stream only reads added rows; " + CONTINUE
    ),
    r"\[DELTA_SOURCE_IGNORE_DELETE].*?at version (?P<version>\d+)": (
        "version {version} of the table deleted existing rows, and a stream only reads added rows; " + CONTINUE
    ),
    r"\[DIFFERENT_DELTA_TABLE_READ_BY_STREAMING_SOURCE]": (
        "the consumer's checkpoint belongs to an earlier table than the one in {table}; " + READ_AGAIN
    ),
    r"\[DELTA_MISSING_FILES_UNEXPECTED_VERSION]|\[DELTA_LOG_FILE_NOT_FOUND_FOR_STREAMING_SOURCE]"
    r"|\[DELTA_STREAMING_CHECK_COLUMN_MAPPING_NO_SNAPSHOT]": (
        "the table's log was cleaned up and no longer has the version at which the consumer's checkpoint continues; "
        + READ_AGAIN
    ),
    r"\[DELTA_SCHEMA_CHANGED[A-Z_]*]": (
        "the table's columns changed while the consumer was running; run it again to continue with the new columns"
    ),
    r"\[DELTA_STREAMING_INCOMPATIBLE_SCHEMA_CHANGE[A-Z_]*]": (
        "a column of the table was renamed, dropped or changed its type, which the consumer's checkpoint does not "
        "allow; " + READ_AGAIN
    ),
    r"\[DELTA_(?:VERSIONS_NOT_CONTIGUOUS|TRUNCATED_TRANSACTION_LOG)]": LOG_DAMAGED,
    r"(?:reading file|Checksum error:) [^\n]*/_delta_log/": LOG_DAMAGED,
    r"Trying to load a non-existent version (?P<version>\d+)": (
        "the consumer's checkpoint has read version {version}, which the table in {table} does not have; " + READ_AGAIN
    ),
    r"(?P<file>[^\s/]+\.parquet)(?: does not exist| is not a Parquet file| at \d+ exp:)": (
        "the table's data file {file} is missing or damaged in {table}; restore it from a copy, or " + START_OVER
    ),
    r"\[UNRESOLVED_COLUMN.*?`visit_id` cannot be resolved": ANOTHER_TABLE,
    r"FOREACH_BATCH_USER_FUNCTION_ERROR.*?Traceback.*?\n(?P<cause>[A-Za-z_][^\n]*)": (
        "the function that processes a batch failed ({cause}); the batch counts as unread, so fix the function and run "
        f"the script again (with {DEBUG}=1 to see where)"
    ),
    r"\[DELTA_CANNOT_CREATE_LOG_PATH]|failed to create its directory|Mkdirs failed|mkdir of [^\n]* failed"
    r"|FileAlreadyExistsException|ParentNotDirectoryException|Not a directory": READ_ONLY,
    r"No FileSystem for scheme|ClassNotFoundException: Class \S*[Ff]ile[Ss]ystem not found": (
        "Spark has no file system for {warehouse}; set VISITS_WAREHOUSE to a folder, or give Spark the jars of that "
        "file system"
    ),
    r"Call From \S+ to (?P<address>\S+) failed on connection exception": (
        "the warehouse's file system does not answer at {address}; check that it runs and that VISITS_WAREHOUSE is its "
        "address"
    ),
    **START_CAUSES,
    ENDED: SPARK_ENDED,
}

CONCURRENT = r"\[CONCURRENT_STREAM_LOG_UPDATE]|Multiple streaming queries are concurrently using"
# Code that reads the table's log, and code that reads the checkpoint. Where an error was thrown is no cause, so these
# come last.
LOG_CODE = r"sql\.delta\.actions"
CHECKPOINT_CODE = r"HDFSMetadataLog|OffsetSeqLog|CommitLog|StreamMetadata|CheckpointFileManager|populateStartOffsets"


def error_message(error: BaseException) -> str:
    """Return one sentence, without its full stop, that names what went wrong and how to fix it."""
    text = str(error)
    if isinstance(error, PushgatewayError):
        return f"{text}; {REJECTED if error.rejected else START_GATEWAY}"
    if isinstance(error, LagDetectorError):
        return text
    text = f"{text}\n{getattr(error, '_stackTrace', '')}"  # PySpark keeps the stack trace apart from the message
    return known_message(text) or f"{first_cause(text) or type(error).__name__} (run again with {DEBUG}=1 to see where)"


def start_message(text: str) -> str | None:
    """Return the sentence for why Spark did not start, or None if there is none."""
    return _message(START_CAUSES, _without_frames(text))


def known_message(text: str) -> str | None:
    """Return the sentence for what Spark, Delta or Java said, or None if there is none."""
    causes = _without_frames(text)
    if message := _message(CAUSES, causes):
        return message
    if "streaming" in text and (found_damage := damage(checkpoint_location())):
        return _fill(CHECKPOINT_DAMAGED, damage=found_damage)
    if re.search(CONCURRENT, causes):
        return (
            "another consumer uses the same checkpoint and continues, so this one has stopped; run python "
            "visits_consumer.py again when the other one has ended"
        )
    if re.search(LOG_CODE, text):
        return _fill(LOG_DAMAGED)
    return _fill(CHECKPOINT_UNCLEAR, cause=first_cause(text)) if re.search(CHECKPOINT_CODE, text) else None


def _message(causes: dict[str, str], text: str) -> str | None:
    for pattern, message in causes.items():
        if found := re.search(pattern, text, re.DOTALL):
            return _fill(message, **found.groupdict())
    return None


def another_table() -> str:
    """Return the sentence for a table that is not, or may not be, the tutorial's."""
    return _fill(ANOTHER_TABLE)


def _without_frames(text: str) -> str:
    """Return the messages of a Java stack trace, without the places where they were thrown."""
    return "\n".join(line for line in text.splitlines() if not re.match(r"\s+(at |\.\.\. \d+ more)", line))


def first_cause(text: str) -> str:
    """Return the first line of a Java or Python error that says something, and its root cause if that says more."""
    lines = [line.strip().rstrip(".") for line in _without_frames(text).splitlines()]
    noise = ("An error occurred while calling", "Traceback", "JVM stacktrace")
    first = next((line.removeprefix(": ") for line in lines if line and not line.startswith(noise)), "")
    root = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")][-1:]
    cause = ": ".join([first, *(line for line in root if line.partition(": ")[2] not in first or ": " not in line)])
    return re.sub(r"(?:[a-z]\w*\.)+[A-Z]\w*(?:Exception|Error): ", "", cause)  # what follows says more


def _fill(message: str, **found: str) -> str:
    places = {name: place() for name, place in PLACES.items() if f"{{{name}}}" in message}
    return message.format(**found, **places)


def _set_aside() -> str:
    checkpoint = checkpoint_location()
    move = "hadoop fs -mv" if ":/" in checkpoint else "mv"
    return f"{move} {shlex.quote(checkpoint)} {shlex.quote(f'{checkpoint}.old')}"


# Evaluated only for a message that names the place.
PLACES: dict[str, Callable[[], str]] = {
    "cache": lambda: str(REPOSITORY / ".cache"),
    "warehouse": warehouse,
    "table": table_location,
    "checkpoint": checkpoint_location,
    "set_aside": _set_aside,
}
