"""Create the empty Delta table default.visits, and print its features and properties.

Run it again to start the tutorial over: it deletes the old table, its consumers' checkpoints and the gauges.
"""

from tutorial.script import progress, run
from tutorial.reset import start_over
from tutorial.session import delta_session
from tutorial.settings import pushgateway, table_location
from tutorial.visits import TABLE

from delta.tables import DeltaTable
from pyspark.sql import SparkSession


def create_visits(spark: SparkSession) -> None:
    """Create the table. A new Delta table is at version 0."""
    visits = DeltaTable.create(spark).tableName(TABLE).location(table_location())
    visits.addColumn("visit_id", "STRING", nullable=False)
    visits.addColumn("event_time", "TIMESTAMP", nullable=False)
    visits.addColumn("user_id", "STRING", nullable=False)
    visits.addColumn("page", "STRING", nullable=False)
    visits.execute()


def main() -> None:
    gateway = pushgateway()
    with delta_session("create_table") as spark:
        progress(f"Creating {TABLE} in {table_location()} …")
        start_over(spark, gateway)
        create_visits(spark)
        DeltaTable.forName(spark, TABLE).detail().select("name", "tableFeatures").show(truncate=False)
        spark.sql(f"SHOW TBLPROPERTIES {TABLE}").show(truncate=False)


if __name__ == "__main__":
    run(main)
