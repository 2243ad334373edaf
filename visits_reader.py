"""Print the whole table default.visits, ordered by visit_id."""

from tutorial.script import progress, run
from tutorial.session import delta_session
from tutorial.visits import TABLE, print_visits, register_table


def main() -> None:
    with delta_session("visits_reader", read_only=True) as spark:
        register_table(spark)
        progress(f"Reading {TABLE} …")
        print_visits(spark.table(TABLE))


if __name__ == "__main__":
    run(main)
