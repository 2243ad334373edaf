"""ReaderVersionListener: what it pushes while a query runs, and what it does when it cannot."""

import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event

from demo.stack import ROOT, wait_for
from fast_spark.jars import JARS
from lag_detector.listener import ReaderVersionListener
from lag_detector.pushgateway import Pushgateway
from tests.helpers import disk_truth as truth
from tests.helpers.delta_tables import Lake
from tests.helpers.http_servers import receive, serve, serve_codes
from tests.helpers.running_streams import (
    assert_reads_v2,
    read_stream,
    read_v2_stream,
    running_query,
    v2_enabled,
)
from tests.helpers.workspace import wait_until_equal

import pytest
from pyspark.sql import SparkSession
from pyspark.sql.streaming.listener import (
    QueryIdleEvent,
    QueryProgressEvent,
    QueryStartedEvent,
    QueryTerminatedEvent,
    StreamingQueryListener,
)

METRIC = "orders_reader_version"
UNREACHABLE = Pushgateway("http://127.0.0.1:9")


@pytest.fixture(autouse=True)
def frequent_idle_events(spark: SparkSession) -> Iterator[None]:
    """Let a query without new data report that it is idle twice a second, and not every ten seconds."""
    spark.conf.set("spark.sql.streaming.noDataProgressEventInterval", "500")
    yield
    for query in spark.streams.active:
        query.stop()
    spark.conf.unset("spark.sql.streaming.noDataProgressEventInterval")


class RunRecorder(StreamingQueryListener):
    """Record the run id of each event after which a ReaderVersionListener may push."""

    def __init__(self) -> None:
        self.run_ids: list[str] = []

    def onQueryStarted(self, event: QueryStartedEvent) -> None:
        pass

    def onQueryProgress(self, event: QueryProgressEvent) -> None:
        self.run_ids.append(str(event.progress.runId))

    def onQueryIdle(self, event: QueryIdleEvent) -> None:
        self.run_ids.append(str(event.runId))

    def onQueryTerminated(self, event: QueryTerminatedEvent) -> None:
        pass


@pytest.mark.parametrize(
    ("names", "v2"),
    [
        pytest.param(["orders", "refunds"], False, id="two-tables"),
        pytest.param(["orders", "orders"], True, id="dsv2-self-union", marks=pytest.mark.slow),
        pytest.param(["orders", "refunds"], True, id="dsv2-two-tables"),
    ],
)
def test_listener_of_query_pushes_the_version_of_each_table(
    lake: Lake, names: list[str], v2: bool, pushgateway_url: str
) -> None:
    metrics = {lake.create(name): f"{name}_{len(names)}_{v2}" for name in dict.fromkeys(names)}
    last_path, last_metric = list(metrics.items())[-1]
    reports: list[str] = []
    rate = lake.spark.readStream.format("rate").load().writeStream.format("noop").start()
    with v2_enabled(lake.spark, v2):
        streams = [(read_v2_stream if v2 else read_stream)(lake, f"{lake.folder}/{name}") for name in names]
        with running_query(lake, streams[0].union(streams[1])) as query:
            gateway = Pushgateway(pushgateway_url)
            lake.spark.streams.addListener(
                ReaderVersionListener(lake.spark, query, gateway, metrics, report=reports.append)
            )
            expected = dict.fromkeys(metrics.values(), 3.0)
            wait_until_equal(lambda: truth.gauges(pushgateway_url, versions=metrics.values()), expected)
            lake.spark.sql(f"INSERT INTO delta.`{last_path}` VALUES (7, 7)")
            expected[last_metric] = 4.0
            wait_until_equal(lambda: truth.gauges(pushgateway_url, versions=metrics.values()), expected)
            if v2:
                assert_reads_v2(query, sources=len(names))
    lines = [f"{metric} 3 pushed to {pushgateway_url}" for metric in metrics.values()]
    wait_until_equal(lambda: reports, [*lines, f"{last_metric} 4 pushed to {pushgateway_url}"])
    assert rate.exception() is None


def test_listener_of_stopped_query_pushes_nothing_for_its_next_run(lake: Lake) -> None:
    """The next run has the same query id and the same checkpoint."""
    path = lake.create("orders")
    recorder = RunRecorder()
    with serve_codes(202) as (address, pushes):
        gateway = Pushgateway(f"http://{address}")

        def pushed() -> set[float]:
            return {push.value(METRIC) for push in pushes}

        with running_query(lake, read_stream(lake, path)) as first:
            lake.spark.streams.addListener(ReaderVersionListener(lake.spark, first, gateway, {path: METRIC}))
            lake.spark.streams.addListener(recorder)  # Spark calls it after the listener
            wait_until_equal(pushed, {3})
        lake.spark.sql(f"INSERT INTO delta.`{path}` VALUES (7, 7)")
        with running_query(lake, read_stream(lake, path)) as second:
            assert second.id == first.id
            assert second.runId != first.runId
            for versions in ({3}, set()):  # a push of the first run may still have been on its way
                wait_for("events of the second run", lambda: recorder.run_ids.count(second.runId) > 3, 30)
                assert pushed() <= versions
                pushes.clear()
                recorder.run_ids.clear()
            lake.spark.streams.addListener(ReaderVersionListener(lake.spark, second, gateway, {path: METRIC}))
            wait_for("pushes of its own listener", lambda: len(pushes) > 5, 30)
            assert pushed() == {4}
        lake.spark.streams.removeListener(recorder)


def test_listener_of_query_by_name_pushes_for_each_of_its_runs(lake: Lake) -> None:
    path = lake.create("orders")
    with serve_codes(202) as (address, pushes):
        listener = ReaderVersionListener(lake.spark, "billing", Pushgateway(f"http://{address}"), {path: METRIC})
        lake.spark.streams.addListener(listener)
        without_name = lake.spark.readStream.format("rate").load().writeStream.format("noop").start()
        for version in (3, 4):
            writer = read_stream(lake, path).writeStream.format("noop").queryName("billing")
            query = writer.option("checkpointLocation", f"{lake.folder}/checkpoint").start()
            # The first, and while it is idle.
            wait_until_equal(lambda: [push.value(METRIC) for push in pushes[-5:]], [version] * 5, 60)
            query.stop()
            lake.spark.sql(f"INSERT INTO delta.`{path}` VALUES (7, 7)")
        without_name.stop()
        lake.spark.streams.removeListener(listener)
    versions = [push.value(METRIC) for push in pushes]
    assert set(versions) == {3, 4}
    assert versions == sorted(versions)


# The client starts the server in a Java of its own, and then speaks to it over the network only.
CONNECT = """
import sys

from lag_detector import LagDetectorError, Pushgateway, ReaderVersionListener, commit_timestamp, last_commit

from pyspark.sql import SparkSession

gateway, table = Pushgateway(sys.argv[1]), sys.argv[2]
spark = (
    SparkSession.builder.remote("local[2]")
    .config("spark.jars", sys.argv[3])
    .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
    .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
    .config("spark.databricks.delta.snapshotPartitions", "1")
    .config("spark.sql.shuffle.partitions", "1")
    .config("spark.ui.enabled", "false")
    .getOrCreate()
)
for _ in range(3):
    spark.range(3).write.format("delta").mode("append").save(table)
spark.streams.addListener(ReaderVersionListener(spark, "billing", gateway, {table: "by_name"}))
orders = spark.readStream.format("delta").load(table).writeStream.format("noop").queryName("billing")
query = orders.option("checkpointLocation", f"{table}.checkpoint").trigger(processingTime="1 second").start()
spark.streams.addListener(ReaderVersionListener(spark, query, gateway, {table: "by_handle"}))
while len(gateway.group_names("by_name") + gateway.group_names("by_handle")) < 2:
    query.awaitTermination(1)
    spark.range(3).write.format("delta").mode("append").save(table)
query.stop()
assert last_commit(spark, table).timestamp > commit_timestamp(spark, table, 0) > 1.7e9
try:
    last_commit(spark, "nowhere")
except LagDetectorError as error:
    print(error)
spark.stop()
"""


@pytest.mark.slow
@pytest.mark.launcher
def test_listeners_push_over_spark_connect_without_deltas_plugin(tmp_path: Path, pushgateway_url: str) -> None:
    jars = ",".join(map(str, JARS.glob("*.jar")))
    done = subprocess.run(
        [sys.executable, "-c", CONNECT, pushgateway_url, f"{tmp_path}/orders", jars],
        env={**os.environ, "SPARK_TESTING": "1", "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "there is no Delta table nowhere; check its name or path"
    assert truth.gauges(pushgateway_url, versions=["by_name", "by_handle"]).keys() == {"by_name", "by_handle"}


def test_listener_when_push_fails_reports_it_once_and_retries(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lag_detector.pushgateway.ATTEMPT_TIMEOUT", 2)
    path = lake.create("orders")
    pushes: list[float] = []
    healed = Event()

    def answer(request: BaseHTTPRequestHandler) -> None:
        pushes.append(receive(request).value(METRIC))
        if not healed.is_set() and len(pushes) == 2:
            healed.wait(30)  # a gateway that hangs
        request.send_response(202 if healed.is_set() else 503)
        request.end_headers()

    reports: list[str] = []
    with serve(answer) as address, running_query(lake, read_stream(lake, path)) as query:
        gateway = Pushgateway(f"http://{address}")
        listener = ReaderVersionListener(lake.spark, query, gateway, {path: METRIC}, report=reports.append)
        lake.spark.streams.addListener(listener)
        wait_for("four pushes", lambda: len(pushes) > 3, 30)
        assert len(reports) == 1
        assert reports[0].startswith(f"the Pushgateway at http://{address} answered 503")
        lake.spark.sql(f"INSERT INTO delta.`{path}` VALUES (7, 7)")
        wait_for("a push of the new version", lambda: 4 in pushes, 30)
        healed.set()
        wait_until_equal(lambda: reports[1:], [f"{METRIC} 4 pushed to http://{address}"])
        assert query.isActive
        listener.close()
        at_close = len(pushes)
        assert query.lastProgress is not None
        seen = query.lastProgress["timestamp"]
        wait_for("another progress", lambda: query.lastProgress["timestamp"] != seen, 30)  # type: ignore[index]
        assert len(pushes) == at_close


def test_listener_of_table_that_query_does_not_read_pushes_nothing(lake: Lake) -> None:
    orders, refunds = lake.create("orders"), lake.create("refunds")
    reports: list[str] = []
    with running_query(lake, read_stream(lake, orders)) as query:
        metrics = {refunds: "refunds_reader_version"}
        lake.spark.streams.addListener(
            ReaderVersionListener(lake.spark, query, UNREACHABLE, metrics, report=reports.append)
        )
        wait_for("a report", lambda: reports, 30)
        assert "does not read the table with the id" in reports[0]
