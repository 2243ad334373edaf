"""Delete the table, the checkpoints of its consumers, and their gauges.

It leaves alone what is not the tutorial's own: the warehouse may be a lake that others live in.
"""

import json
import re

from tutorial.script import progress, run
from tutorial.error_messages import ANOTHER_FOLDER, another_table, error_message
from tutorial.files import WarehousePath, warehouse_path
from tutorial.session import delta_session
from tutorial.settings import CHECKPOINT, checkpoints_location, pushgateway, table_location, warehouse
from tutorial.visits import COLUMNS, METRICS, columns

from lag_detector.errors import LagDetectorError
from lag_detector.pushgateway import CONSUMER, Pushgateway

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession
from pyspark.sql.types import StructType

# What Delta writes into the table's folder.
TABLE_FILES = r"_delta_log|_change_data|(part-|deletion_vector_).*"
# How many versions of a log to search for the columns. Delta writes them into each version's .crc file.
SEARCHED_VERSIONS = 100


def start_over(spark: SparkSession, gateway: Pushgateway, gateway_required: bool = True) -> None:
    """Delete what an earlier round of the tutorial left behind.

    Args:
        spark: a session.
        gateway: where the gauges are.
        gateway_required: whether to stop if the gauges cannot be deleted; else a warning is printed.

    Raises:
        LagDetectorError: something else is in the table's place, and nothing was deleted. Or another program pushes
            the gauges. Or this user may not delete the files.
        PushgatewayError: the gauges could not be deleted, and the rest is still there.
    """
    table = warehouse_path(spark, table_location())
    files = _files_of_visits(table)
    try:
        for metric in METRICS:
            gateway.delete_metric(metric, retry=gateway_required)  # first: a gauge must not outlive its table
    except LagDetectorError as error:
        if gateway_required:
            raise
        progress(f"Warning: {error_message(error)}.")
    for checkpoint in warehouse_path(spark, checkpoints_location()).children():
        if re.fullmatch(f"{CHECKPOINT}(_{CONSUMER})?", checkpoint.name):
            checkpoint.delete()
    for file in [*files, table]:
        file.delete()


def _files_of_visits(table: WarehousePath) -> list[WarehousePath]:
    """Return the table's files in the order in which to delete them.

    The log last, and in it the file that shows the columns: after an interruption the next run still knows the table.

    Raises:
        LagDetectorError: something else is in its place.
    """
    files = {file.name: file for file in table.children()}
    log = files["_delta_log"].children() if "_delta_log" in files else []
    if not files or (not log and files.keys() == {"_delta_log"}):
        return []  # there is no table, or its deletion was interrupted at the very end
    if "_delta_log" not in files:
        raise LagDetectorError(f"{table_location()} is not a Delta table; {ANOTHER_FOLDER}")
    for name in files:
        if not re.fullmatch(TABLE_FILES, name):
            raise LagDetectorError(f"{table_location()}/{name} is not part of the tutorial's table; {ANOTHER_FOLDER}")
    versions = [file for file in log if re.fullmatch(r"\d{20}\.(crc|json)", file.name)]
    versions.sort(key=lambda file: (-int(file.name[:20]), file.name))
    for version in versions[: 2 * SEARCHED_VERSIONS]:
        if found := _columns(version):
            if found == COLUMNS:
                data = [file for name, file in files.items() if name != "_delta_log"]
                return [*data, *(file for file in log if file is not version), version]
            break
    raise LagDetectorError(another_table())


def _columns(version: WarehousePath) -> list[tuple[str, str, bool]] | None:
    """Return the table's columns, if this file of the log has them."""
    try:
        for line in version.read().splitlines():
            action = json.loads(line)
            if metadata := action.get("metaData", action.get("metadata")):  # the one in a commit, the other in a .crc
                return columns(StructType.fromJson(json.loads(metadata["schemaString"])))
    except (Py4JJavaError, ValueError, TypeError, AttributeError, KeyError):
        pass  # a damaged file shows nothing; another one may
    return None


def main() -> None:
    """Delete what the tutorial has made, and keep going without a Pushgateway."""
    gateway = pushgateway()
    with delta_session("reset") as spark:
        progress("Deleting the table, the checkpoints and the gauges …")
        start_over(spark, gateway, gateway_required=False)
    print(f"{warehouse()} has no table and no checkpoints of the tutorial.")


if __name__ == "__main__":
    run(main)
