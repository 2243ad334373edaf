"""Turn what Spark, Delta and Java say into one sentence that names the cause and the fix."""

import re
import shlex
from collections.abc import Callable

from tutorial.checkpoint import damage
from tutorial.settings import checkpoint_location, table_location, warehouse

from fast_spark.environment import DEBUG
from fast_spark.errors import SparkStartError
from fast_spark.failure import ENDED, SPARK_ENDED, first_cause, start_message, without_frames
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
READ_AGAIN = "set it aside with {set_aside} and run the consumer again, which then reads the table from the beginning"
LOG_DAMAGED = (
    "a file of the table's log in {table}/_delta_log is damaged or missing; restore it from a copy, or " + START_OVER
)
AHEAD_OF_TABLE = (
    "the consumer's checkpoint has read version {version}, which the table in {table} does not have; " + READ_AGAIN
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

# A pattern for a cause that Spark, Delta, Java or Python names → our sentence. The first match wins, so a cause that
# can be behind any other one comes first: a full disk also damages files.
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
    r"|\[DELTA_STREAMING_CHECK_COLUMN_MAPPING_NO_SNAPSHOT]|startVersion=\d+ but no log file": (
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
    # Delta's kernel parses only the log. The sum of a version is left where its commit is missing.
    r"Could not parse JSON|delta\.kernel\S+ is not a Parquet file|checksum version \(\d+\) should be": LOG_DAMAGED,
    r"(?:Trying to load a non-existent version |commits up to version |endVersion=)(?P<version>\d+)": AHEAD_OF_TABLE,
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
    r"(?:Call From \S+ to|HTTP request: Connect to) (?P<address>\S+) (?:\S+ )?failed(?: on connection exception|:)": (
        "the warehouse's file system does not answer at {address}; check that it runs and that VISITS_WAREHOUSE is its "
        "address"
    ),
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
    if isinstance(error, LagDetectorError | SparkStartError):
        return text
    text = f"{text}\n{getattr(error, '_stackTrace', '')}"  # PySpark keeps the stack trace apart from the message
    return known_message(text) or f"{first_cause(text) or type(error).__name__} (run again with {DEBUG}=1 to see where)"


def known_message(text: str) -> str | None:
    """Return the sentence for what Spark, Delta or Java said, or None if there is none."""
    causes = without_frames(text)
    for pattern, message in CAUSES.items():
        if found := re.search(pattern, causes, re.DOTALL):
            return _fill(message, **found.groupdict())
    if started := start_message(causes):
        return started
    if re.search(ENDED, causes):
        return SPARK_ENDED
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


def ahead_of_table(version: int) -> str:
    """Return the sentence for a checkpoint that has read a version which the table does not have."""
    return _fill(AHEAD_OF_TABLE, version=str(version))


def another_table() -> str:
    """Return the sentence for a table that is not, or may not be, the tutorial's."""
    return _fill(ANOTHER_TABLE)


def _fill(message: str, **found: str) -> str:
    places = {name: place() for name, place in PLACES.items() if f"{{{name}}}" in message}
    return message.format(**found, **places)


def _set_aside() -> str:
    checkpoint = checkpoint_location()
    move = "hadoop fs -mv" if ":/" in checkpoint else "mv"
    return f"{move} {shlex.quote(checkpoint)} {shlex.quote(f'{checkpoint}.old')}"


# Evaluated only for a message that names the place.
PLACES: dict[str, Callable[[], str]] = {
    "warehouse": warehouse,
    "table": table_location,
    "checkpoint": checkpoint_location,
    "set_aside": _set_aside,
}
