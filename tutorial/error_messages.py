"""Turn what Spark, Delta and Java say into one sentence that names the cause and the fix."""

import re
import shlex

from tutorial.settings import DEBUG, checkpoint_location, table_location, warehouse

from lag_detector.errors import LagDetectorError, PushgatewayError

START_OVER = "start over with python create_table.py"
READ_ONLY = "the warehouse cannot be written; set VISITS_WAREHOUSE to a folder that you can write to"
SPARK_ENDED = "Spark's own process ended unexpectedly (killed, or out of memory); run it again to continue"
READ_AGAIN = (
    "delete it with {delete_checkpoint} and run the consumer again, which then reads the table from the beginning"
)
LOG_DAMAGED = (
    "a file of the table's log in {table}/_delta_log is damaged or missing; restore it from a copy, or " + START_OVER
)
CONTINUE = (
    'to continue without them, add .option("skipChangeCommits", "true") after .readStream in visits_consumer.py; '
    "to read the table again as it is now, run {delete_checkpoint}; or " + START_OVER
)
START_GATEWAY = (
    "check that it runs (docker compose up -d --wait) and that PUSHGATEWAY_URL is its address, then run it again"
)
REJECTED = "fix what its answer names, then run it again"

# A pattern for what Spark, Delta and Java say (message and stack trace) → our sentence. The first match wins.
MESSAGES = {
    r"DELTA_SOURCE_TABLE_IGNORE_CHANGES.*?for example (?P<what>\w+).*?at version (?P<version>\d+)": (
        "version {version} of the table changed existing rows ({what}), and a stream only reads added rows; " + CONTINUE
    ),
    r"DELTA_SOURCE_IGNORE_DELETE.*?at version (?P<version>\d+)": (
        "version {version} of the table deleted existing rows, and a stream only reads added rows; " + CONTINUE
    ),
    r"DIFFERENT_DELTA_TABLE_READ_BY_STREAMING_SOURCE": (
        "the consumer's checkpoint belongs to an earlier table than the one in {table}; " + READ_AGAIN
    ),
    r"CONCURRENT_STREAM_LOG_UPDATE|Multiple streaming queries are concurrently using": (
        "another consumer uses the same checkpoint and continues, so this one has stopped; run python "
        "visits_consumer.py again when the other one has ended (if there is none, the checkpoint is damaged: delete it "
        "with {delete_checkpoint}, and the table is read from the beginning)"
    ),
    r"Trying to load a non-existent version (?P<version>\d+)": (
        "the consumer's checkpoint has read version {version}, which the table in {table} does not have; " + READ_AGAIN
    ),
    r"DELTA_MISSING_FILES_UNEXPECTED_VERSION|DELTA_LOG_FILE_NOT_FOUND_FOR_STREAMING_SOURCE": (
        "the table's log was cleaned up and no longer has the version at which the consumer's checkpoint continues; "
        + READ_AGAIN
    ),
    r"HDFSMetadataLog|OffsetSeqLog|CommitLog|StreamMetadata|STREAMING_CHECKPOINT_MISSING_METADATA_FILE"
    r"|in the checkpoint offsets|batch \d+ doesn't exist|assertion failed.*populateStartOffsets": (
        "a file of the consumer's checkpoint is damaged or missing; " + READ_AGAIN
    ),
    r"DELTA_STREAMING_INCOMPATIBLE_SCHEMA_CHANGE|DELTA_SCHEMA_CHANGED": (
        "the table's columns have changed in a way that the consumer's checkpoint does not allow; " + READ_AGAIN
    ),
    r"(?:reading file|Checksum error:) [^\n]*/_delta_log/": LOG_DAMAGED,
    r"(?P<file>[^\s/]+\.parquet)(?: does not exist| is not a Parquet file| at \d+ exp:)": (
        "the table's data file {file} is missing or damaged in {table}; restore it from a copy, or " + START_OVER
    ),
    r"DELTA_VERSIONS_NOT_CONTIGUOUS|DELTA_TRUNCATED_TRANSACTION_LOG|sql\.delta\.actions": LOG_DAMAGED,
    r"FOREACH_BATCH_USER_FUNCTION_ERROR.*?Traceback.*?\n(?P<cause>[A-Za-z_][^\n]*)": (
        "the function that processes a batch failed ({cause}); the batch counts as unread, so fix the function and run "
        f"it again (with {DEBUG}=1 to see where)"
    ),
    r"DELTA_CANNOT_CREATE_LOG_PATH|failed to create its directory|Mkdirs failed|mkdir of [^\n]* failed"
    r"|Permission denied|AccessControlException|FileAlreadyExistsException|ParentNotDirectoryException"
    r"|Not a directory|Read-only file system": READ_ONLY,
    r"No space left on device": "the warehouse's disk is full; free some space and run it again",
    r"Master must either be|Could not parse Master URL": (
        "Spark does not know such a master; set SPARK_MASTER to local[*] or spark://host:7077, or unset it"
    ),
    r"unresolved dependency|download failed": (
        "Delta's jars could not be fetched from Maven Central; run it again with a network connection, which is only "
        "needed once"
    ),
    r"All masters are unresponsive|Cannot call methods on a stopped SparkContext": (
        "Spark stopped by itself, as it does when no Spark master answers; check that the master runs and that "
        "SPARK_MASTER is its address"
    ),
    r"No FileSystem for scheme|ClassNotFoundException: Class \S*[Ff]ile[Ss]ystem not found": (
        "Spark has no file system for {warehouse}; set VISITS_WAREHOUSE to a folder, or give Spark the jars of that "
        "file system"
    ),
    r"Call From \S+ to (?P<address>\S+) failed on connection exception": (
        "the warehouse's file system does not answer at {address}; check that it runs and that VISITS_WAREHOUSE is its "
        "address"
    ),
    r"Answer from Java side is empty|Error while (?:sending or receiving|obtaining a new communication channel)"
    r"|trying to connect to the Java server|Connection refused|No active or default Spark session": SPARK_ENDED,
}


def error_message(error: BaseException) -> str:
    """Return one sentence, without its full stop, that names what went wrong and how to fix it."""
    text = str(error)
    if isinstance(error, PushgatewayError):
        return f"{text}; {REJECTED if error.rejected else START_GATEWAY}"
    if isinstance(error, LagDetectorError):
        return text
    stack_trace = getattr(error, "_stackTrace", "")  # PySpark keeps it apart from the message
    cause = _first_line(text) or type(error).__name__
    return known_message(f"{text}\n{stack_trace}") or f"{cause} (run again with {DEBUG}=1 to see where)"


def known_message(text: str) -> str | None:
    """Return the sentence for what Spark, Delta or Java said, or None if there is none."""
    for pattern, message in MESSAGES.items():
        if found := re.search(pattern, text, re.DOTALL):
            places = {name: place() for name, place in PLACES.items() if f"{{{name}}}" in message}
            return message.format(**found.groupdict(), **places)
    return None


def _first_line(text: str) -> str:
    """Return the line of a Java or Python error that names its cause."""
    lines = (line.strip().rstrip(".") for line in text.splitlines())
    noise = ("An error occurred while calling", "Traceback")
    return next((line.removeprefix(": ") for line in lines if line and not line.startswith(noise)), "")


def _delete_checkpoint() -> str:
    checkpoint = checkpoint_location()
    delete = "hadoop fs -rm -r" if ":/" in checkpoint else "rm -r"
    return f"{delete} {shlex.quote(checkpoint)}"


# Evaluated only for a message that names the place.
PLACES = {"warehouse": warehouse, "table": table_location, "delete_checkpoint": _delete_checkpoint}
