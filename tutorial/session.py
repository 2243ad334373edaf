"""The session of the tutorial's scripts."""

from collections.abc import Iterator
from contextlib import contextmanager

from tutorial.settings import warehouse

from fast_spark import session

from pyspark.sql import SparkSession


@contextmanager
def delta_session(name: str, short_run: bool = True, read_only: bool = False) -> Iterator[SparkSession]:
    """Open a Spark session with Delta Lake on the tutorial's warehouse, see `fast_spark.session.delta_session`."""
    with session.delta_session(name, warehouse(), short_run, read_only) as spark:
        yield spark
