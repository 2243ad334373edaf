"""Create the table default.visits, empty, at version 0.

Run again, it starts the tutorial over: the old rows, the consumer's checkpoint and the gauges of the
earlier round go. Prints the table's features and properties.
"""

import sys

from lag_detector.cli import run, tell
from lag_detector.gauges import READER_VERSION, WRITER_VERSION, forget, pushgateway
from lag_detector.places import table_location, warehouse
from lag_detector.session import delta_session
from lag_detector.visits import COLUMNS, TABLE, start_over

from delta.tables import DeltaTable
from pyspark.sql import SparkSession


def create_visits(spark: SparkSession) -> None:
    """Create the table where the earlier one was."""
    DeltaTable.create(spark).tableName(TABLE).location(table_location()).addColumns(COLUMNS).execute()


def show_visits(spark: SparkSession) -> None:
    """Print what Delta says about the new table."""
    DeltaTable.forName(spark, TABLE).detail().select("name", "tableFeatures").show(truncate=False)
    spark.sql(f"SHOW TBLPROPERTIES {TABLE}").show(truncate=False)


def main() -> None:
    """Forget the earlier round, then create the table."""
    # Gauges first: should the rest fail, no version is shown that the table does not have.
    gateway = pushgateway()
    forget(gateway, WRITER_VERSION)
    forget(gateway, READER_VERSION)
    with delta_session("create_table", warehouse()) as spark:
        tell(f"Creating {TABLE} in {warehouse()} …")
        start_over(spark)
        create_visits(spark)
        show_visits(spark)


if __name__ == "__main__":
    sys.exit(run(main))
