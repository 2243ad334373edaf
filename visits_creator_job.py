"""Append three commits to default.visits, then push the table's last version: 3 at first, then 6, 9, ..."""

from tutorial.script import progress, run
from tutorial.session import delta_session
from tutorial.settings import pushgateway
from tutorial.visits import TABLE, WRITER_VERSION, register_table

from lag_detector import last_commit

from pyspark.sql import SparkSession


def append_visits(spark: SparkSession) -> None:
    """Append three commits. Each INSERT is one commit, and each commit makes the next version of the table."""
    for commit in range(3):
        spark.sql(f"""
            INSERT INTO {TABLE} VALUES
                ('visit 1-{commit}', TIMESTAMP '2024-07-01 12:00:00.840Z', 'user 1', 'index.html'),
                ('visit 2-{commit}', TIMESTAMP '2024-07-01 14:00:00.840Z', 'user 2', 'contact.html'),
                ('visit 3-{commit}', TIMESTAMP '2024-07-01 15:00:00.840Z', 'user 3', 'about.html')
        """)


def main() -> None:
    gateway = pushgateway()
    with delta_session("visits_creator_job") as spark:
        register_table(spark, to_write=True)
        progress(f"Appending three commits to {TABLE} …")
        append_visits(spark)
        version = gateway.push_latest(WRITER_VERSION, lambda: last_commit(spark, TABLE))
        print(f"{WRITER_VERSION} {version} pushed to {gateway}")


if __name__ == "__main__":
    run(main)
