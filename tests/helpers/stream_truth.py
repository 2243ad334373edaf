"""Real streams and what a watcher shows of them. The ground truth is what a run really reads."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from delta_watch.backlog import NOTHING, Amount, Backlog, Reads, total
from delta_watch.watcher import Consumer, ConsumerState, Watcher
from tests.helpers.bucket_server import url
from tests.helpers.running_streams import v2_enabled

from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

# How a stream reads what the watcher calls by these names.
OPTIONS: dict[Reads, dict[str, str]] = {
    "appends": {"skipChangeCommits": "true"},
    "rewrites": {"ignoreChanges": "true"},
    "change_feed": {"readChangeFeed": "true"},
}

NO_LIMIT: dict[str, str] = {}
FILE_BY_FILE = {"maxFilesPerTrigger": "1"}


class SimulatedKill(Exception):
    """End the run here, as if it had been killed."""


@dataclass(frozen=True)
class Reader:
    """A query that reads tables.

    Args:
        spark: a session with Delta Lake.
        checkpoint: the folder of its checkpoint.
        tables: the path of each source's table.
        reads: what it does with commits that remove rows.
        options: additional options of its sources.
        v2: whether Delta's DSv2 source reads them.
    """

    spark: SparkSession
    checkpoint: Path
    tables: Sequence[str]
    reads: Reads = "appends"
    options: dict[str, str] = field(default_factory=dict)
    v2: bool = False

    def run(
        self,
        limit: Mapping[str, str] = NO_LIMIT,
        kill_in: int | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> dict[str, Amount]:
        """Read all that is there.

        Args:
            limit: options of the sources that limit a batch.
            kill_in: the batch of this run in which to kill it, counted from 0.
            meanwhile: what happens in the first batch.

        Returns:
            What it has read of each table, in the batches that it has finished.
        """
        before = self.batches("commits")
        received: dict[int, list[Any]] = {}

        def sink(rows: DataFrame, batch: int) -> None:
            if len(received) == kill_in:
                raise SimulatedKill
            if meanwhile and not received:
                meanwhile()
            received[batch] = rows.groupBy("source", "file").count().collect()

        rows_reported = None
        try:
            rows_reported = self._run(sink, limit)
        except StreamingQueryException as error:
            if "SimulatedKill" not in str(error):
                raise
        read = [row for batch in self.batches("commits") - before for row in received[batch]]
        if rows_reported is not None:
            self._check_reported(rows_reported, sum(row["count"] for row in read))
        return {
            table: total(Amount(1, _size(row.file), row["count"]) for row in read if self.tables[row.source] == table)
            for table in self.tables
        }

    def batches(self, kind: str) -> set[int]:
        """Return the batches that the checkpoint has in `offsets` (planned) or in `commits` (finished)."""
        return {int(file.name) for file in (self.checkpoint / kind).glob("*") if file.name.isdigit()}

    def unfinished(self) -> set[int]:
        """Return the batches that are planned and not finished."""
        return self.batches("offsets") - self.batches("commits")

    def _check_reported(self, reported: int, received: int) -> None:
        """Check the rows received against the query's progress. It also counts those that deletion vectors mark."""
        has_vectors = any(file for table in self.tables for file in Path(table).glob("deletion_vector_*.bin"))
        assert reported >= received if has_vectors else reported == received

    def _run(self, sink: Callable[[DataFrame, int], None], limit: Mapping[str, str]) -> int:
        with v2_enabled(self.spark, self.v2):
            sources = [self._source(number, limit) for number in range(len(self.tables))]
            writer = reduce(DataFrame.unionAll, sources).writeStream.foreachBatch(sink).trigger(availableNow=True)
            query = writer.option("checkpointLocation", str(self.checkpoint)).start()
            query.awaitTermination()
        return sum(json.loads(progress.json)["numInputRows"] for progress in query.recentProgress)

    def _source(self, number: int, limit: Mapping[str, str]) -> DataFrame:
        options = {**OPTIONS[self.reads], **self.options, **limit}
        reader = self.spark.readStream.format("delta").options(**options)
        table = self.tables[number]
        # By name, because `load` always takes the classic source. Each of them gives the file's name in its own way.
        rows = reader.table(f"delta.`{table}`") if self.v2 else reader.load(table)
        file = F.col("_metadata.file_path") if self.v2 else F.input_file_name()
        return rows.select(F.lit(number).alias("source"), file.alias("file"))


class Watchers:
    """A watcher that has looked all the time, and new ones. All must agree, also those that see a bucket.

    Args:
        readers: whose lags to find.
        in_bucket: whether an object store has what is on this disk.
    """

    def __init__(self, *readers: Reader, in_bucket: bool = False) -> None:
        self._readers = readers
        self._kinds: list[Callable[[Path], str]] = [str, url] if in_bucket else [str]
        self._old = [self._new(locate) for locate in self._kinds]

    def look(self, reader: Reader, table: str = "") -> ConsumerState:
        """Return what is known of a reader of this table, by default its only one."""
        watchers = [*self._old, *map(self._new, self._kinds)]
        seen, *others = [self._look(watcher, reader, table or reader.tables[0]) for watcher in watchers]
        for other in others:
            assert _comparable(other) == _comparable(seen)
        return seen

    def backlog(self, reader: Reader, table: str = "") -> Backlog:
        """Return the backlog, which must be known."""
        state = self.look(reader, table)
        assert state.error is None
        assert state.backlog
        return state.backlog

    def reason(self, reader: Reader) -> str | None:
        """Return why the backlog is unknown, None if it is known."""
        error = self.look(reader).error
        return error.reason if error else None

    def amount(self, reader: Reader, table: str = "") -> Amount:
        """Return what the reader will read, which must be known."""
        amount = self.backlog(reader, table).amount
        assert amount
        return amount

    def _new(self, locate: Callable[[Path], str]) -> Watcher:
        tables = {table: locate(Path(table)) for reader in self._readers for table in reader.tables}
        consumers = [
            Consumer(str(reader.checkpoint), table, locate(reader.checkpoint), reader.reads)
            for reader in self._readers
            for table in dict.fromkeys(reader.tables)
        ]
        return Watcher(tables, consumers)

    @staticmethod
    def _look(watcher: Watcher, reader: Reader, table: str) -> ConsumerState:
        watcher.run_round()
        states = [state for each in watcher.states if each.name == table for state in each.consumers]
        return next(state for state in states if state.consumer.name == str(reader.checkpoint))


def check_run(
    watchers: Watchers, reader: Reader, limit: Mapping[str, str] = NO_LIMIT, kill_in: int | None = None
) -> Backlog:
    """Run a reader, check that it reads what the watcher has shown, and return that.

    A run that was killed has read a part. The rest is what the watcher shows after it.
    """
    shown = watchers.backlog(reader)
    read = reader.run(limit, kill_in)[reader.tables[0]]
    after = watchers.backlog(reader)
    assert shown.amount
    assert after.amount
    if kill_in is None:
        assert (after.versions, after.since, after.rewrites, after.amount) == (0, None, 0, NOTHING)
    total_read = read.plus(after.amount)
    assert shown.amount == (total_read if shown.amount.rows is not None else total_read._replace(rows=None))
    return shown


def _size(location: str) -> int:
    return os.path.getsize(unquote(urlparse(location).path))


def _comparable(state: ConsumerState) -> tuple[Backlog | None, str | None]:
    """Return what must be the same on every kind of store. An object store knows no fractions of a second."""
    backlog = state.backlog
    if backlog and backlog.since is not None:
        backlog = replace(backlog, since=int(backlog.since))
    return backlog, state.error.reason if state.error else None
