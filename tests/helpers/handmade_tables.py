"""Tables and checkpoints as Delta and Spark write them, made by hand: for the watcher, which reads nothing else."""

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from delta_watch.backlog import Backlog
from delta_watch.checkpoint import RARE
from delta_watch.commits import Commit, CommitParser, commit_name
from delta_watch.commits import Files as FilesOfTable
from delta_watch.snapshots import read_snapshot
from delta_watch.store import open_folder
from delta_watch.watcher import Consumer, ConsumerState, Watcher

import pytest

Action = dict[str, Any]
ID, OTHER = "6a3f1a0e-0000-4000-8000-000000000001", "6a3f1a0e-0000-4000-8000-000000000002"
KAFKA = '{"topic":{"0":12}}'
PLANNED = 1_700_000_000.0  # when each batch was planned, in Unix time


def add(path: str, rows: int | None = 1, size: int = 100, **fields: Any) -> Action:
    """An added file. `deleted=2` gives it a deletion vector for two rows."""
    stats = {} if rows is None else {"stats": json.dumps({"numRecords": rows, "minValues": {"id": 1}})}
    return {"add": {**_file(path, size, fields), "modificationTime": 1, "partitionValues": {}, **stats, **fields}}


def remove(path: str, **fields: Any) -> Action:
    """A removed file."""
    return {"remove": {**_file(path, 100, fields), **fields}}


def _file(path: str, size: int, fields: Action) -> Action:
    deleted = fields.pop("deleted", None)
    vector = {"storageType": "u", "pathOrInlineDv": f"dv{deleted}", "offset": 1, "cardinality": deleted}
    return {"path": path, "size": size, "dataChange": True, **({"deletionVector": vector} if deleted else {})}


def metadata(table_id: str, **properties: str) -> Action:
    return {"metaData": {"id": table_id, "schemaString": "{}", "configuration": properties}}


def commit_text(actions: Sequence[Action]) -> str:
    return "".join(f"{json.dumps(action, separators=(',', ':'))}\n" for action in actions)


def offset(version: int, index: int = -1, table_id: str = ID, initial: bool = False, source_version: int = 1) -> str:
    """A Delta source's line in a file of the folder `offsets`."""
    fields = {
        "sourceVersion": source_version,
        "reservoirId": table_id,
        "reservoirVersion": version,
        "index": index,
        "isStartingVersion": initial,
    }
    return json.dumps(fields, separators=(",", ":"))


def batch_text(*sources: str, planned: float = PLANNED, log: str = "v1") -> str:
    if log == "v2":
        sources = tuple(f"{number}:{source}" for number, source in enumerate(sources))
    return "\n".join([log, json.dumps({"batchWatermarkMs": 0, "batchTimestampMs": int(planned * 1000)}), *sources])


def parse_commit(content: bytes, modified: float) -> Commit:
    parser = CommitParser()
    for line in filter(None, content.split(b"\n")):
        parser.add_line(line)
    return parser.commit(modified)


def snapshot(commits: Iterable[bytes]) -> FilesOfTable:
    with TemporaryDirectory() as log:
        for version, content in enumerate(commits):
            Path(log, commit_name(version)).write_bytes(content)
        files = asyncio.run(read_snapshot(open_folder(log), version))
    assert files
    return files


class Files:
    """A table at version 0, and the checkpoint of a query that has not started.

    Args:
        folder: where to make them.
        table_id: the id of the table.
        locate: where a watcher finds a folder, by default on this disk.
    """

    def __init__(self, folder: Path, table_id: str = ID, locate: Callable[[Path], str] = str) -> None:
        self.locate = locate
        self.table, self.checkpoint, self.id = folder / "table", folder / "checkpoint", table_id
        self.log = self.table / "_delta_log"
        self.log.mkdir(parents=True)
        self.commit(0, metadata(table_id), {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}})
        for kind in ("offsets", "commits"):
            (self.checkpoint / kind).mkdir(parents=True)
        (self.checkpoint / "metadata").write_text('{"id":"query"}')

    def checksum(self, version: int, **fields: Any) -> None:
        """Write the file that Delta writes with a commit."""
        (self.log / f"{version:020d}.crc").write_text(json.dumps({"metadata": {"id": self.id}, **fields}))

    def commit_path(self, version: int) -> Path:
        return self.log / f"{version:020d}.json"

    def commit(self, version: int, *actions: Action) -> None:
        """Write a commit at once, as Delta does."""
        info = {"commitInfo": {"timestamp": 1, "operation": "WRITE", "engineInfo": "test"}}
        temporary = self.log / f".{version}.tmp"
        temporary.write_text(commit_text([info, *actions]))
        temporary.rename(self.commit_path(version))

    def stage(self, version: int) -> str:
        """Append a row of 100 bytes in a commit that a catalog has not published, and return the name of its file."""
        self.append(version, version)
        folder = self.log / "_staged_commits"
        folder.mkdir(exist_ok=True)
        return self.commit_path(version).rename(folder / f"{version:020d}.{uuid4()}.json").name

    def append(self, first: int, last: int) -> None:
        """Append a row of 100 bytes in each of these versions."""
        for version in range(first, last + 1):
            self.commit(version, add(f"{version}.parquet"))

    def plan(self, batch: int, *sources: str) -> None:
        (self.checkpoint / "offsets" / str(batch)).write_text(batch_text(*sources))

    def finish(self, batch: int) -> None:
        (self.checkpoint / "commits" / str(batch)).write_text("v1\n{}")

    def read(self, batch: int, *sources: str) -> None:
        """Plan a batch and finish it."""
        self.plan(batch, *sources)
        self.finish(batch)

    def watcher(self, **options: Any) -> Watcher:
        """Watch this table and this consumer."""
        consumer = Consumer("fraud", "orders", self.locate(self.checkpoint), options.pop("reads", "appends"))
        return Watcher({"orders": self.locate(self.table)}, [consumer], **options)


def before_the_head(patch: pytest.MonkeyPatch, watcher: Watcher, action: Callable[[], object]) -> None:
    """Do this each time after the watcher has read the checkpoints and before it finds the head."""
    table = watcher.inventory.tables["orders"].table
    find_head = table.find_head
    patch.setattr(table, "find_head", lambda: (action(), find_head())[1])


def look(watcher: Watcher) -> ConsumerState:
    """Run a round and return what it has found out about the only consumer."""
    watcher.run_round()
    ((state,),) = [table.consumers for table in watcher.states]
    return state


def known(watcher: Watcher) -> Backlog:
    """Run a round and return the backlog of the only consumer, which must be known."""
    state = look(watcher)
    assert state.error is None
    assert state.backlog
    return state.backlog


def soon(look: Callable[[], object], expected: object) -> None:
    """Look until it is as expected, in as many rounds as may pass until a rare look at a bucket."""
    seen = look()
    for _ in range(RARE):
        if seen == expected:
            break
        seen = look()
    assert seen == expected


def lag(watcher: Watcher) -> tuple[int, int]:
    """Run a round and return the version read and the lag."""
    backlog = known(watcher)
    return backlog.version, backlog.versions


def reasons(watcher: Watcher) -> list[str | None]:
    """Run a round and return why the lag of each consumer is unknown, None if it is known."""
    watcher.run_round()
    states = [state for table in watcher.states for state in table.consumers]
    assert all(state.error or state.backlog for state in states)
    return [state.error.reason if state.error else None for state in states]
