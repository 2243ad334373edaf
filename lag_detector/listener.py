"""Push what a streaming query has read, while it runs."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Lock

from pyspark.sql import SparkSession
from pyspark.sql.streaming.listener import (
    QueryIdleEvent,
    QueryProgressEvent,
    QueryStartedEvent,
    QueryTerminatedEvent,
    StreamingQueryListener,
    StreamingQueryProgress,
)
from pyspark.sql.streaming.query import StreamingQuery

from .errors import LagDetectorError
from .pushgateway import Pushgateway, group_name
from .versions import TableDetail, commit_timestamp, last_read_version, table_detail

logger = logging.getLogger("lag_detector")


class ReaderVersionListener(StreamingQueryListener):
    """Push the last version of each Delta table that a query has read: after each batch, and while it is idle.

    Start the query, then call `spark.streams.addListener`. A failed push never stops the query. It is reported once
    and retried after the next batch, or after 10 seconds without one. An unknown version is not pushed.

    Args:
        spark: the session of the query.
        query: the query to watch, or its name where there is no handle, as in a pipeline's definitions. Other queries
            need a listener of their own, and so do later runs of this one, unless it is watched by its name.
        gateway: where to push.
        metrics: the gauge's name for each Delta table that the query reads, by the table's name or path. If the query
            is given by name and there is one table here, the query must read no other Delta table.
        consumer: the name of an additional consumer of the same tables, see `group_name`.
        report: called with one line for each newly pushed version and for each failure. By default the logger
            `lag_detector` gets them, at level INFO and WARNING.

    Raises:
        LagDetectorError: the consumer's name is invalid, or a table is not a Delta table. If the query is given by
            name, the latter is reported instead: a pipeline may still create the table.
    """

    def __init__(
        self,
        spark: SparkSession,
        query: StreamingQuery | str,
        gateway: Pushgateway,
        metrics: Mapping[str, str],
        consumer: str = "",
        report: Callable[[str], None] | None = None,
    ) -> None:
        self._spark, self._gateway, self._consumer = spark, gateway, consumer
        self._report, self._warn = report or logger.info, report or logger.warning
        self._tables = [_Table(name, metric, group_name(metric, consumer)) for name, metric in metrics.items()]
        self._query = query
        # A restarted query keeps its id and its name, and gets another run id.
        self._run_id = None if isinstance(query, str) else query.runId
        self._progress: StreamingQueryProgress | None = None
        if not isinstance(query, str):
            for table in self._tables:
                table.detail = table_detail(spark, table.name)
        self._pushing = Lock()
        self._closed = False

    def close(self) -> None:
        """Stop pushing. Wait for a push that is running."""
        with self._pushing:
            self._closed = True

    def onQueryStarted(self, event: QueryStartedEvent) -> None:
        """Do nothing: nothing has been read yet."""

    def onQueryProgress(self, event: QueryProgressEvent) -> None:
        """Push after a batch."""
        if event.progress.name == self._query:
            self._run_id = str(event.progress.runId)
        if str(event.progress.runId) == self._run_id:
            self._push_all(event.progress)

    def onQueryIdle(self, event: QueryIdleEvent) -> None:
        """Push again although nothing is new, so that a silent consumer is a dead one."""
        if str(event.runId) == self._run_id:
            self._push_all(self._progress if isinstance(self._query, str) else self._query.lastProgress)

    def onQueryTerminated(self, event: QueryTerminatedEvent) -> None:
        """Do nothing: the caller that waits for the query knows why it ended."""

    def _push_all(self, progress: StreamingQueryProgress | None) -> None:
        self._progress = progress
        with self._pushing:
            if self._closed:
                return
            for table in self._tables:
                try:
                    if not table.detail and len(self._tables) > 1:
                        table.detail = table_detail(self._spark, table.name)
                    self._push(table, last_read_version(progress, table.detail and table.detail.id))
                except Exception as error:
                    if not table.failing:
                        self._warn(f"{_one_line(error)}; retrying until it succeeds")
                    table.failing = True

    def _push(self, table: "_Table", version: int | None) -> None:
        if version is None:
            return
        is_new = version != table.version
        if is_new:
            if isinstance(self._query, str):  # a pipeline's process soon ends: push before asking for the time
                self._gateway.push(table.metric, version, None, self._consumer, retry=False)
            location = table.detail and table.detail.location
            timestamp = commit_timestamp(self._spark, table.name, version, location)
            table.version, table.timestamp = version, timestamp
        self._gateway.push(table.metric, version, table.timestamp, self._consumer, retry=False)
        if is_new or table.failing:
            self._report(f"{table.group} {version} pushed to {self._gateway}")
        table.failing = False


@dataclass
class _Table:
    """A table that the query reads, and what was pushed last for it."""

    name: str
    metric: str
    group: str
    detail: TableDetail | None = None
    version: int | None = None
    timestamp: float | None = None
    failing: bool = False


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, LagDetectorError) else f"{type(error).__name__}: {text[:300]}"
