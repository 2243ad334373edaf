"""GracefulStop and on_stop_signal: a query ends between two batches, and no work is lost or repeated."""

import os
import signal
from collections.abc import Iterator
from threading import Timer
from unittest.mock import patch

from tutorial.script import on_stop_signal

from demo.stack import wait_for
from lag_detector.graceful_stop import GracefulStop
from lag_detector.versions import last_read_version
from tests.helpers.delta_tables import Lake
from tests.helpers.running_streams import read_stream, running_query
from tests.helpers.workspace import wait_until_equal

import pytest
from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame

SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture(autouse=True)
def keep_handlers() -> Iterator[None]:
    """Restore this process's own signal handlers, whatever a failed test has left."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_stop_signal_during_batch_ends_query_after_that_batch(lake: Lake) -> None:
    path = lake.create("orders")
    done: list[tuple[int, int]] = []
    stop = GracefulStop()

    def work(rows: DataFrame, batch_id: int) -> None:
        if batch_id == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop._requested.wait(30)  # the main thread handles the signal
            before = look.call_count
            wait_for("another look at the query, which must let it run", lambda: look.call_count > before, 10)
        done.append((batch_id, rows.count()))

    slow = read_stream(lake, path, maxFilesPerTrigger="1")
    with running_query(lake, slow, stop.between_batches(work)) as query:
        with (
            patch.object(query, "awaitTermination", wraps=query.awaitTermination) as look,
            on_stop_signal(stop.request),
        ):
            stop.await_termination(query)
        assert not query.isActive
        assert [batch_id for batch_id, _ in done] == [0, 1]
    with running_query(lake, read_stream(lake, path), GracefulStop().between_batches(work)) as again:
        again.processAllAvailable()
        assert [batch_id for batch_id, _ in done] == [0, 1, 2, *range(3, len(done))]
        assert sum(rows for _, rows in done) == 6
        assert last_read_version(again.lastProgress) == 3


def test_request_while_idle_ends_the_query(lake: Lake) -> None:
    path = lake.create("orders")
    stop = GracefulStop()
    batches: list[int] = []
    work = stop.between_batches(lambda rows, batch_id: batches.append(batch_id))
    with running_query(lake, read_stream(lake, path), work) as query:
        query.processAllAvailable()
        Timer(1, stop.request).start()
        stop.await_termination(query)
        assert not query.isActive
        assert query.exception() is None
    assert batches == [0]


def test_await_termination_of_query_that_fails_raises(lake: Lake) -> None:
    path = lake.create("orders")
    stop = GracefulStop()
    work = stop.between_batches(lambda rows, batch_id: None)
    with running_query(lake, read_stream(lake, path), work) as query:
        query.processAllAvailable()
        lake.spark.sql(f"DELETE FROM delta.`{path}` WHERE id = 0")
        with pytest.raises(StreamingQueryException, match="DELTA_SOURCE_TABLE_IGNORE_CHANGES"):
            stop.await_termination(query)


@pytest.mark.parametrize("second", SIGNALS)
@pytest.mark.parametrize("first", [*SIGNALS, None])
def test_second_stop_signal_reaches_the_handler_before(first: signal.Signals | None, second: signal.Signals) -> None:
    """So does a signal after the block."""
    received: list[str] = []
    for number in SIGNALS:
        signal.signal(number, lambda *_: received.append("before"))

    def send(number: signal.Signals, expected: list[str]) -> None:
        os.kill(os.getpid(), number)
        wait_until_equal(lambda: received, expected, 10)

    with on_stop_signal(lambda *_: received.append("stop")):
        if first:
            send(first, ["stop"])
            send(second, ["stop", "before"])
    if not first:
        send(second, ["before"])
