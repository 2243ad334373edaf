"""Streaming queries that keep running, and streams that Delta's DSv2 source reads."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.helpers.delta_tables import Lake

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.query import StreamingQuery
from pyspark.sql.streaming.readwriter import DataStreamWriter

BatchFunction = Callable[[DataFrame, int], None]

V2_MODE = "spark.databricks.delta.v2.enableMode"
V2_SOURCE = "io.delta.spark.internal.v2.read.DeltaV2MicroBatchStream@"


def ignore_batch(rows: DataFrame, batch_id: int) -> None:
    """Do nothing with a batch. The stream has read it all the same."""


def read_stream(lake: Lake, path: str, **options: str) -> DataFrame:
    """Read a table as a stream."""
    return lake.spark.readStream.format("delta").options(**options).load(path)


@contextmanager
def running_query(lake: Lake, stream: DataFrame, function: BatchFunction = ignore_batch) -> Iterator[StreamingQuery]:
    """Run a query with the lake's checkpoint until the end of the `with` block. It looks often for new data."""
    query = _writer(lake, stream, function).trigger(processingTime="100 milliseconds").start()
    try:
        yield query
    finally:
        query.stop()


def run_to_end(lake: Lake, stream: DataFrame) -> StreamingQuery:
    """Run a query with the lake's checkpoint until it has read all that is there."""
    query = _writer(lake, stream, ignore_batch).trigger(availableNow=True).start()
    query.awaitTermination()
    return query


def _writer(lake: Lake, stream: DataFrame, function: BatchFunction) -> DataStreamWriter:
    return stream.writeStream.foreachBatch(function).option("checkpointLocation", f"{lake.folder}/checkpoint")


@contextmanager
def v2_enabled(spark: SparkSession, enabled: bool = True) -> Iterator[None]:
    """Enable DSv2 for every table, or disable it. By default Delta uses it to stream Unity Catalog's managed tables."""
    before = str(spark.conf.get(V2_MODE))
    spark.conf.set(V2_MODE, "STRICT" if enabled else "NONE")
    try:
        yield
    finally:
        spark.conf.set(V2_MODE, before)


def read_v2_stream(lake: Lake, path: str, **options: str) -> DataFrame:
    """Read a table as a stream, with DSv2 if it is enabled. By name, because `load` always takes the classic source."""
    return lake.spark.readStream.options(**options).table(f"delta.`{path}`")


def assert_reads_v2(query: StreamingQuery, sources: int) -> None:
    """Check that DSv2 has read each source, so that no test silently covers the classic source instead."""
    assert query.lastProgress is not None
    descriptions = [source["description"] for source in json.loads(query.lastProgress.json)["sources"]]
    assert len(descriptions) == sources
    assert [text for text in descriptions if not text.startswith(V2_SOURCE)] == []
