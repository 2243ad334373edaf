"""Publish what a streaming query has read, while it runs."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Lock

from lag_detector.consumers import checked_name
from lag_detector.gauges import Pushgateway, push
from lag_detector.sentences import first_line
from lag_detector.versions import commit_time, last_read_version, table_id

from pyspark.sql import SparkSession
from pyspark.sql.streaming.listener import (
    QueryIdleEvent,
    QueryProgressEvent,
    QueryStartedEvent,
    QueryTerminatedEvent,
    StreamingQueryListener,
)
from pyspark.sql.streaming.query import StreamingQuery

logger = logging.getLogger("lag_detector")


class ReaderVersionListener(StreamingQueryListener):
    """Publish the last version of each Delta table that a query has read, after each batch and while it is idle.

    To be added with `spark.streams.addListener` once the query runs. Nothing that goes wrong in here stops the query:
    it is told once, and tried again at the next batch, or 10 seconds later when there is none. A version that is
    unknown is not published.

    Args:
        spark: the session of the query.
        query: the query to watch; other queries of the session are left alone.
        gateway: where to publish.
        gauges: the name of the gauge for each Delta table that the query reads, by the table's name or path.
        consumer: the name of a further consumer of the same tables.
        tell: takes each new version that was published and each failure, as one line; without it the logger
            `lag_detector` gets them, as information and as warnings.

    Raises:
        LagDetectorError: one of the tables is no Delta table, or the consumer's name is none.
    """

    def __init__(
        self,
        spark: SparkSession,
        query: StreamingQuery,
        gateway: Pushgateway,
        gauges: Mapping[str, str],
        consumer: str = "",
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.session, self.query, self.gateway = spark, query, gateway
        self.consumer = checked_name(consumer, "the consumer")
        self.inform, self.warn = tell or logger.info, tell or logger.warning
        self.tables = [_Table(table, gauge, table_id(spark, table)) for table, gauge in gauges.items()]
        self.publishing = Lock()
        self.closed = False

    def close(self) -> None:
        """Publish nothing more; a push that is under way has ended when this returns."""
        with self.publishing:
            self.closed = True

    def onQueryStarted(self, event: QueryStartedEvent) -> None:
        """Do nothing: nothing is read yet."""

    def onQueryProgress(self, event: QueryProgressEvent) -> None:
        """Publish after a batch."""
        if str(event.progress.id) == self.query.id:
            self._publish()

    def onQueryIdle(self, event: QueryIdleEvent) -> None:
        """Publish again when there is nothing new, so that a silent consumer is a dead one."""
        if str(event.id) == self.query.id:
            self._publish()

    def onQueryTerminated(self, event: QueryTerminatedEvent) -> None:
        """Do nothing: whoever waits for the query knows why it ended."""

    def _publish(self) -> None:
        with self.publishing:
            progress = None if self.closed else self.query.lastProgress
            if progress is None:
                return
            for table in self.tables:
                try:
                    self._publish_one(table, last_read_version(progress, table.id))
                except Exception as error:
                    if not table.is_failing:
                        self.warn(f"{first_line(str(error)) or type(error).__name__}; trying again until it succeeds")
                    table.is_failing = True

    def _publish_one(self, table: "_Table", version: int | None) -> None:
        if version is None:
            return
        is_new = version != table.version
        if is_new:
            table.version, table.committed = version, commit_time(self.session, table.name, version)
        told = push(self.gateway, table.gauge, version, table.committed, self.consumer)
        if is_new or table.is_failing:
            self.inform(told)
        table.is_failing = False


@dataclass
class _Table:
    """A table that the query reads: its gauge, its id, and what was last published of it."""

    name: str
    gauge: str
    id: str
    version: int | None = None
    committed: float | None = None
    is_failing: bool = False
