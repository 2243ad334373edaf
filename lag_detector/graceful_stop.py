"""Stop a streaming query between two batches.

Spark's own `stop()` interrupts the running batch. Spark then repeats that batch, so its work is done twice.
"""

from collections.abc import Callable
from functools import wraps
from threading import Event

from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame
from pyspark.sql.streaming.query import StreamingQuery

BatchFunction = Callable[[DataFrame, int], None]

POLL_SECONDS = 0.5


class StopRequested(Exception):
    """Raised instead of starting a batch after the request. The next run of the query processes that batch."""


class GracefulStop:
    """Stop a query between two batches. Its `foreachBatch` function must be wrapped in `between_batches`.

    Call `request` from a signal handler or from another thread.
    """

    def __init__(self) -> None:
        self._requested, self._refused_batch = Event(), Event()

    def request(self, *_: object) -> None:
        """Ask the query to stop after the running batch. Takes and ignores the arguments of a signal handler."""
        self._requested.set()

    def between_batches(self, function: BatchFunction) -> BatchFunction:
        """Wrap a `foreachBatch` function, so that no batch starts after the request."""

        @wraps(function)
        def batch(rows: DataFrame, batch_id: int) -> None:
            if self._requested.is_set():
                self._refused_batch.set()
                raise StopRequested
            function(rows, batch_id)

        return batch

    def await_termination(self, query: StreamingQuery) -> None:
        """Wait until the query ends, by the request or by itself.

        Raises:
            StreamingQueryException: the query failed.
        """
        try:
            while not query.awaitTermination(POLL_SECONDS):  # type: ignore[arg-type]
                if self._requested.is_set() and not query.status["isTriggerActive"]:
                    query.stop()
        except StreamingQueryException:
            if not self._refused_batch.is_set():
                raise
