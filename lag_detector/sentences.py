"""One place where what Spark, Delta and Java say becomes a sentence of ours."""

import re
import shlex

from lag_detector.errors import DEBUG, JAVA_ENDED, READ_ONLY, START_OVER, LagDetectorError
from lag_detector.places import checkpoint_location, table_location, warehouse

READ_AGAIN = "delete it with {delete_checkpoint} and run the consumer again: it reads the table from its beginning"
LOG_DAMAGED = (
    "a file of the table's log in {table}/_delta_log is damaged or missing; put it back from a copy, or " + START_OVER
)
GO_ON = (
    'to go on without them, add .option("skipChangeCommits", "true") after .readStream in visits_consumer.py; '
    "to read the table again as it is now, run {delete_checkpoint}; or " + START_OVER
)

# What Spark, Delta and Java say (a pattern of their text and stack) and what we say: the cause, then the mend.
# The first that fits is told.
SENTENCES = {
    r"DELTA_SOURCE_TABLE_IGNORE_CHANGES.*?for example (?P<what>\w+).*?at version (?P<version>\d+)": (
        "version {version} of the table changed rows that it had before ({what}), and a stream reads added rows only; "
        + GO_ON
    ),
    r"DELTA_SOURCE_IGNORE_DELETE.*?at version (?P<version>\d+)": (
        "version {version} of the table deleted rows that it had before, and a stream reads added rows only; " + GO_ON
    ),
    r"DIFFERENT_DELTA_TABLE_READ_BY_STREAMING_SOURCE": (
        "the consumer's checkpoint belongs to an earlier table than the one in {table}; " + READ_AGAIN
    ),
    r"CONCURRENT_STREAM_LOG_UPDATE|Multiple streaming queries are concurrently using": (
        "another consumer works with the same checkpoint and goes on, this one has stopped; run python "
        "visits_consumer.py again when it has ended (and if there is none, the checkpoint is damaged: "
        "delete it with {delete_checkpoint} and the table is read from its beginning)"
    ),
    r"Trying to load a non-existent version (?P<version>\d+)": (
        "the consumer's checkpoint has read version {version}, which the table in {table} does not have; " + READ_AGAIN
    ),
    r"DELTA_MISSING_FILES_UNEXPECTED_VERSION|DELTA_LOG_FILE_NOT_FOUND_FOR_STREAMING_SOURCE": (
        "the table's log was cleaned up and no longer has the version from which the consumer's checkpoint goes on; "
        + READ_AGAIN
    ),
    r"HDFSMetadataLog|OffsetSeqLog|CommitLog|StreamMetadata|STREAMING_CHECKPOINT_MISSING_METADATA_FILE"
    r"|in the checkpoint offsets|batch \d+ doesn't exist|assertion failed.*populateStartOffsets": (
        "a file of the consumer's checkpoint is damaged or missing; " + READ_AGAIN
    ),
    r"DELTA_STREAMING_INCOMPATIBLE_SCHEMA_CHANGE|DELTA_SCHEMA_CHANGED": (
        "the columns of the table have changed in a way that the consumer's checkpoint cannot follow; " + READ_AGAIN
    ),
    r"(?:reading file|Checksum error:) [^\n]*/_delta_log/": LOG_DAMAGED,
    r"(?P<file>[^\s/]+\.parquet)(?: does not exist| is not a Parquet file| at \d+ exp:)": (
        "the table's data file {file} is missing or damaged in {table}; put it back from a copy, or " + START_OVER
    ),
    r"DELTA_VERSIONS_NOT_CONTIGUOUS|DELTA_TRUNCATED_TRANSACTION_LOG|sql\.delta\.actions": LOG_DAMAGED,
    r"FOREACH_BATCH_USER_FUNCTION_ERROR.*?Traceback.*?\n(?P<cause>[A-Za-z_][^\n]*)": (
        "the consumer's work on a batch failed ({cause}); the batch counts as not read and comes again, mend the work "
        f"and run it again (with {DEBUG}=1 to see where)"
    ),
    r"DELTA_CANNOT_CREATE_LOG_PATH|failed to create its directory|Mkdirs failed|mkdir of [^\n]* failed"
    r"|Permission denied|AccessControlException|FileAlreadyExistsException|ParentNotDirectoryException"
    r"|Not a directory|Read-only file system": READ_ONLY,
    r"No space left on device": "the disk of the warehouse is full; make room and run it again",
    r"Master must either be|Could not parse Master URL": (
        "the name of the Spark master is none that Spark knows; set SPARK_MASTER to local[*] or spark://host:7077, or "
        "unset it"
    ),
    r"unresolved dependency|download failed": (
        "Delta's jars could not be fetched from Maven Central; run it again with a network connection, they are then "
        "kept for good"
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
        "the file system of the warehouse does not answer at {address}; check that it runs and that VISITS_WAREHOUSE "
        "is its address"
    ),
    r"Answer from Java side is empty|Error while (?:sending or receiving|obtaining a new communication channel)"
    r"|trying to connect to the Java server|Connection refused|No active or default Spark session": JAVA_ENDED,
}


def sentence(error: BaseException) -> str:
    """Say in one sentence, without its full stop, what went wrong and what mends it."""
    text = str(error)
    if isinstance(error, LagDetectorError):
        return text
    stack = getattr(error, "_stackTrace", "")  # PySpark keeps it apart
    cause = first_line(text) or type(error).__name__
    return known_sentence(f"{text}\n{stack}") or f"{cause} (run again with {DEBUG}=1 to see where)"


def known_sentence(text: str) -> str | None:
    """Find the sentence for what Spark, Delta or Java said; None where there is none."""
    for pattern, known in SENTENCES.items():
        if found := re.search(pattern, text, re.DOTALL):
            places = {name: tell() for name, tell in PLACES.items() if f"{{{name}}}" in known}
            return known.format(**found.groupdict(), **places)
    return None


def first_line(text: str) -> str:
    """Cut a Java or Python error down to the line that names its cause."""
    lines = (line.strip().rstrip(".") for line in text.splitlines())
    noise = ("An error occurred while calling", "Traceback")
    return next((line.removeprefix(": ") for line in lines if line and not line.startswith(noise)), "")


def _delete_checkpoint() -> str:
    checkpoint = checkpoint_location()
    delete = "hadoop fs -rm -r" if ":/" in checkpoint else "rm -r"
    return f"{delete} {shlex.quote(checkpoint)}"


# What a sentence may name; asked for only where one does.
PLACES = {"warehouse": warehouse, "table": table_location, "delete_checkpoint": _delete_checkpoint}
