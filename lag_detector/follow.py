"""Keep a streaming query running until Ctrl-C or SIGTERM asks it to stop, and stop it between two batches.

Spark's own `stop()` cuts off the batch that is under way; it comes again, so what it did is done twice.
"""

import signal
from collections.abc import Callable
from functools import wraps
from threading import Event

from lag_detector.listener import ReaderVersionListener

from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.query import StreamingQuery

Work = Callable[[DataFrame, int], None]

LOOK = 0.5  # seconds between two looks whether we were asked to stop

_asked, _refused = Event(), Event()


class StopAsked(Exception):
    """The batch begins after we were asked to stop; nothing of it was done, so it comes again."""


def between_batches(work: Work) -> Work:
    """Decorate the work on a batch so that no batch begins after the process was asked to stop."""

    @wraps(work)
    def batch(rows: DataFrame, batch_id: int) -> None:
        if _asked.is_set():
            _refused.set()
            raise StopAsked
        work(rows, batch_id)

    return batch


def publish_until_stopped(spark: SparkSession, query: StreamingQuery, listener: ReaderVersionListener) -> None:
    """Let the listener publish while the query runs; asked to stop, wait for the end of the batch that is under way.

    Asked by Ctrl-C or SIGTERM; a second time, the process ends at once.

    Args:
        spark: the session of the query.
        query: the query, whose `foreachBatch` takes work that is decorated with `between_batches`.
        listener: the one that publishes.

    Raises:
        StreamingQueryException: the query ended by itself.
    """
    spark.streams.addListener(listener)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(*_: object) -> None:
        # Nothing is raised, so no call of Java is cut off.
        _asked.set()
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in before:
        signal.signal(number, ask)
    try:
        while not query.awaitTermination(LOOK):  # type: ignore[arg-type]
            if _asked.is_set() and not query.status["isTriggerActive"]:
                query.stop()
    except StreamingQueryException:
        if not _refused.is_set():
            raise
    finally:
        listener.close()
