"""A consumer that keeps running: what it publishes while it runs, what it does when it cannot, and how it ends."""

import os
import signal
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event
from typing import Any

from demo.stack import wait_for
from lag_detector import follow, gauges
from lag_detector.follow import between_batches, publish_until_stopped
from lag_detector.gauges import Pushgateway
from lag_detector.listener import ReaderVersionListener
from lag_detector.versions import last_read_version
from tests import truth
from tests.conftest import Reader, becomes, complaints
from tests.servers import serving
from tests.test_any_table import Lake

import psutil
import pytest
from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame, SparkSession

JOB, FRAUD = "visits_reader_version", "visits_reader_version_fraud"


def test_two_that_follow_beside_a_writer_and_a_reader(alone: Reader) -> None:
    gateway = alone.stack.pushgateway

    def read() -> tuple[float | None, float | None]:
        there = truth.gauges(gateway)
        return there.get(JOB), there.get(FRAUD)

    def last_push() -> float:
        (pushed,) = alone.stack.query(f'push_time_seconds{{job="{JOB}"}}')
        return pushed

    alone.succeed("create_table.py")
    ours = alone.start("visits_consumer.py --follow")
    fraud = alone.start("visits_consumer.py --follow", VISITS_CONSUMER="fraud")
    with ours, fraud:
        try:
            becomes(read, (0, 0), limit=120)
            alone.succeed("visits_creator_job.py")
            becomes(read, (3, 3))
            assert alone.succeed("visits_reader.py").count("|visit ") == 9
            assert truth.times(gateway)[FRAUD] == truth.times(gateway)["visits_writer_version"]
            pushed = wait_for("a scrape", lambda: last_push() or None, 30)
            wait_for("a push although there is nothing new", lambda: last_push() > pushed or None, 60)
            (java,) = [process.cmdline() for process in psutil.Process(ours.pid).children() if "java" in process.name()]
            assert [option for option in java if "TieredStopAtLevel" in option or "codegen" in option] == []
            ours.terminate()
            os.killpg(fraud.pid, signal.SIGINT)  # as a terminal does: Java gets it too
            told = [process.communicate(timeout=60) for process in (ours, fraud)]
        finally:
            ours.kill()
            fraud.kill()
    assert [process.returncode for process in (ours, fraud)] == [0, 0], told
    for (out, err), job in zip(told, (JOB, FRAUD), strict=True):
        assert out.count("|visit ") == 9
        assert out.endswith(f"{job} 3 pushed to {gateway}\n")
        # Each new version once, whatever batches the three commits came in.
        lines = complaints(err)
        assert lines[0] == f"{job} 0 pushed to {gateway}"
        assert lines[-1] == f"{job} 3 pushed to {gateway}"
        assert len(lines) == len(set(lines))
    assert "|visit " not in alone.succeed("visits_consumer.py")


def test_what_is_no_option(alone: Reader) -> None:
    told = alone.fail("visits_consumer.py --folow")
    assert "visits_consumer.py takes --follow or nothing, and not --folow" in told


@pytest.fixture
def lake(spark: SparkSession, tmp_path: Path) -> Iterator[Lake]:
    """Streams that publish while they are idle twice a second, and a process that nobody has asked to stop."""
    spark.conf.set("spark.sql.streaming.noDataProgressEventInterval", "500")
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield Lake(spark, tmp_path)
    for number, handler in before.items():
        signal.signal(number, handler)
    follow._asked.clear()
    follow._refused.clear()
    for query in spark.streams.active:
        query.stop()
    spark.conf.unset("spark.sql.streaming.noDataProgressEventInterval")


def running(lake: Lake, stream: DataFrame, work: Any = lambda rows, batch: None) -> Any:
    writer = stream.writeStream.foreachBatch(work).trigger(processingTime="100 milliseconds")
    return writer.option("checkpointLocation", f"{lake.folder}/checkpoint").start()


def opened(lake: Lake, path: str, **options: str) -> DataFrame:
    return lake.spark.readStream.format("delta").options(**options).load(path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_batch_under_way_is_done_and_the_next_does_not_begin(lake: Lake, number: signal.Signals) -> None:
    path = lake.create("orders")
    done = []

    @between_batches
    def work(rows: DataFrame, batch: int) -> None:
        if batch == 1:
            os.kill(os.getpid(), number)
            wait_for("the main thread to be asked", lambda: follow._asked.is_set() or None, 30)
        done.append((batch, rows.count()))

    query = running(lake, opened(lake, path, maxFilesPerTrigger="1"), work)
    listener = ReaderVersionListener(lake.spark, query, Pushgateway("http://127.0.0.1:9"), {}, tell=print)
    publish_until_stopped(lake.spark, query, listener)
    assert [batch for batch, _ in done] == [0, 1]
    follow._asked.clear()
    again = running(lake, opened(lake, path), work)
    again.processAllAvailable()
    assert [batch for batch, _ in done] == [0, 1, 2, *range(3, len(done))]
    assert sum(rows for _, rows in done) == 6
    assert last_read_version(again.lastProgress) == 3


def test_a_stream_that_fails_is_told_of(lake: Lake) -> None:
    path = lake.create("orders")
    query = running(lake, opened(lake, path))
    lake.spark.sql(f"DELETE FROM delta.`{path}` WHERE id = 0")
    listener = ReaderVersionListener(lake.spark, query, Pushgateway("http://127.0.0.1:9"), {}, tell=print)
    with pytest.raises(StreamingQueryException, match="DELTA_SOURCE_TABLE_IGNORE_CHANGES"):
        publish_until_stopped(lake.spark, query, listener)


def test_two_tables_of_one_query(lake: Lake, pushgateway_url: str) -> None:
    orders, refunds = lake.create("visits_orders"), lake.create("refunds")
    query = running(lake, opened(lake, orders).union(opened(lake, refunds)))
    other = lake.spark.readStream.format("rate").load().writeStream.format("noop").start()
    listener = ReaderVersionListener(
        lake.spark, query, Pushgateway(pushgateway_url), {orders: "orders_reader_version", refunds: "refunds_reader"}
    )
    lake.spark.streams.addListener(listener)

    def published() -> dict[str, float]:
        names = ("orders_reader_version", "refunds_reader")
        return {series["job"]: value for series, value in truth.samples(pushgateway_url) if series["__name__"] in names}

    becomes(published, {"orders_reader_version": 3.0, "refunds_reader": 3.0})
    lake.spark.sql(f"INSERT INTO delta.`{refunds}` VALUES (7, 7)")
    becomes(published, {"orders_reader_version": 3.0, "refunds_reader": 4.0})
    assert other.exception() is None


def test_a_push_that_fails_is_told_once_and_made_good(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauges, "TRY_TIMEOUT", 0.5)
    path = lake.create("orders")
    pushes: list[str] = []
    healed = Event()

    def answer(request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"])).decode()
        pushes.append(next(line for line in body.splitlines() if line.startswith("orders_reader_version ")))
        if not healed.is_set() and len(pushes) == 2:
            healed.wait(30)  # a gateway that hangs
        request.send_response(202 if healed.is_set() else 503)
        request.end_headers()

    told: list[str] = []
    with serving(answer) as address:
        query = running(lake, opened(lake, path))
        listener = ReaderVersionListener(
            lake.spark, query, Pushgateway(f"http://{address}"), {path: "orders_reader_version"}, tell=told.append
        )
        lake.spark.streams.addListener(listener)
        wait_for("four pushes", lambda: len(pushes) > 3 or None, 30)
        assert len(told) == 1
        assert told[0].startswith(f"the Pushgateway at http://{address} did not take it (it answered 503")
        lake.spark.sql(f"INSERT INTO delta.`{path}` VALUES (7, 7)")
        wait_for("a push of the new version", lambda: "orders_reader_version 4.0" in pushes or None, 30)
        healed.set()
        becomes(lambda: told[1:], [f"orders_reader_version 4 pushed to http://{address}"])
        assert query.isActive
        listener.close()
        closed_at = len(pushes)
        seen = query.lastProgress["timestamp"]
        wait_for("more idling", lambda: query.lastProgress["timestamp"] != seen or None, 30)
        assert len(pushes) == closed_at


def test_nothing_is_published_of_what_is_unknown(lake: Lake) -> None:
    """Of a progress that is not known here, and of a table that the query does not read."""
    orders, refunds = lake.create("orders"), lake.create("refunds")
    told: list[str] = []
    query = running(lake, opened(lake, orders))
    listener = ReaderVersionListener(
        lake.spark, query, Pushgateway("http://127.0.0.1:9"), {refunds: "refunds_reader_version"}, tell=told.append
    )
    lake.spark.streams.addListener(listener)
    wait_for("a failure", lambda: told or None, 30)
    assert "does not read the table with the id" in told[0]
