"""A watcher looks at tables and checkpoints as they change, go wrong and heal."""

import asyncio
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

from delta_watch import store
from delta_watch.backlog import NOTHING, Amount, Backlog
from delta_watch.errors import WatchError
from delta_watch.exporter import WatcherCollector
from delta_watch.once import format_table
from delta_watch.summary import lags
from delta_watch.table import Head
from delta_watch.watcher import Consumer, Discovery, Watcher
from tests.helpers.bucket_server import url
from tests.helpers.handmade_tables import (
    ID,
    KAFKA,
    OTHER,
    PLANNED,
    Files,
    batch_text,
    before_the_head,
    known,
    lag,
    look,
    metadata,
    offset,
    reasons,
    soon,
)
from tests.helpers.workspace import wait_until_equal

import pytest
from prometheus_client import generate_latest

DISK = pytest.mark.parametrize("files", [str], ids=["disk"], indirect=True)


@pytest.fixture(params=[str, url], ids=["disk", "bucket"])
def files(request: pytest.FixtureRequest, files: Files) -> Files:
    """The hand-made table on a disk, or in a bucket."""
    if request.param is url:
        request.getfixturevalue("bucket")
    files.locate = request.param
    return files


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file was read."""
    count: Counter[str] = Counter()

    def counted(read: Callable[..., Any]) -> Callable[..., Any]:
        def method(self: store.LocalFolder, name: str, *arguments: Any) -> Any:
            count[f"{self}/{name}"] += 1
            return read(self, name, *arguments)

        return method

    for method in ("read", "read_lines"):
        monkeypatch.setattr(store.LocalFolder, method, counted(getattr(store.LocalFolder, method)))
    return count


@pytest.fixture
def healthy(tmp_path: Path) -> Files:
    """Another table at version 0, and a consumer that has read it."""
    made = Files(tmp_path / "healthy", OTHER)
    made.read(0, offset(1, table_id=OTHER))
    return made


@contextmanager
def replaced(path: Path, make: Callable[[Path], object] = lambda path: None) -> Iterator[None]:
    """Take a file or folder away, put what `make` makes in its place, and restore it at the end."""
    away = path.rename(path.with_name(f"away from {path.name}"))
    make(path)
    try:
        yield
    finally:
        made = path.rename(path.with_name("made")) if path.exists() else path
        away.rename(path)
        if made.is_fifo():  # only now, so that nobody opens it again
            with suppress(OSError):
                os.close(os.open(made, os.O_WRONLY | os.O_NONBLOCK))  # releases the thread that waits
        if made.is_dir() and made != path:
            made.rmdir()


def text(content: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(content)


# What it shows


def test_lag_backlog_and_head(files: Files) -> None:
    watcher = files.watcher()
    second = 1 if files.locate is url else 0  # S3 has no fractions
    times: list[Any] = [pytest.approx(files.commit_path(version).stat().st_mtime, abs=second) for version in (4, 6)]
    assert known(watcher) == Backlog(3, 3, times[0], Amount(3, 300, 3), 0)
    (table,) = watcher.states
    assert table.head == Head(6, times[1], 30 * 86400)


def test_initial_snapshot_of_a_table_whose_log_no_longer_starts_at_0(files: Files) -> None:
    files.read(1, offset(4, 2, initial=True))
    files.checksum(6)
    for version in range(5):
        files.commit_path(version).unlink()
        backlog = known(files.watcher())
        assert (backlog.versions, backlog.since is None, backlog.amount) == (7, version == 4, None)


def test_batch_that_runs(files: Files) -> None:
    def running(watcher: Watcher) -> tuple[bool, float | None]:
        state = look(watcher)
        assert state.progress
        assert state.backlog
        assert state.backlog.version == 3  # also while Spark writes the plan
        return state.progress.is_running, state.progress.planned

    watcher = files.watcher()
    assert running(watcher) == (False, None)
    (files.checkpoint / "offsets" / "1").write_text("v1")
    assert running(watcher) == (True, None)
    files.plan(1, offset(4))
    assert running(watcher) == (True, PLANNED)
    files.finish(1)
    assert running(watcher) == (False, None)


def test_what_hadoop_leaves_in_the_folders(files: Files) -> None:
    for folder in (files.checkpoint / "offsets", files.checkpoint / "commits", files.log):
        for name in (".9.crc", ".9.tmp", "9.tmp", "9.compact", "-1", "१", ".00000000000000000009.json.crc", "_commits"):
            (folder / name).write_text("garbage")
    assert lag(files.watcher()) == (3, 3)


# Nothing is read twice, and each lag was true at some moment


@DISK
def test_no_file_is_read_twice(files: Files, reads: Counter[str]) -> None:
    watcher = files.watcher()
    files.plan(1, offset(6))
    look(watcher)
    first = Counter(reads)
    look(watcher)
    assert reads == first
    files.append(7, 7)
    look(watcher)
    files.finish(1)
    look(watcher)
    assert set(reads.values()) == {1}
    assert f"{files.commit_path(3)}" not in reads


def test_commits_that_nobody_needs_any_more_are_forgotten(files: Files) -> None:
    watcher = files.watcher()
    look(watcher)
    files.read(1, offset(7))
    look(watcher)
    table = watcher.inventory.tables["orders"].table._known
    assert table
    assert table.commits.keys() == {6}


def test_position_is_read_before_the_head(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """A consumer that reads a new commit right after its checkpoint was read is not ahead of the table."""
    watcher = files.watcher()
    look(watcher)

    def read_new_commit() -> None:
        if not files.commit_path(7).exists():
            files.append(7, 7)
            files.read(1, offset(8))

    before_the_head(monkeypatch, watcher, read_new_commit)
    # The lag of 4 between the old position and the new head was true at no moment.
    assert lag(watcher) == (7, 0)


def test_writer_faster_than_the_watcher_does_not_hold_it_up(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = files.watcher()
    versions = iter(range(7, 1000))
    before_the_head(monkeypatch, watcher, lambda: files.append(version := next(versions), version))
    assert lag(watcher)[0] == 3


# What goes wrong has a reason of its own, and heals

BATCH = "checkpoint/offsets/0"
COMMIT = "table/_delta_log/{:020d}.json".format
# The reason, what is replaced, and by what.
MISTAKES: dict[str, tuple[Any, ...]] = {
    "no table": ("not_a_table", "table"),
    "folder without a log": ("not_a_table", "table/_delta_log"),
    "no checkpoint": ("missing", "checkpoint"),
    "no finished batch": ("no_batch", "checkpoint/commits/0"),
    "checkpoint of another table": ("wrong_table", BATCH, text(batch_text(offset(4, table_id=OTHER)))),
    "query without Delta": ("not_delta", BATCH, text(batch_text(KAFKA))),
    "source that has read nothing": ("no_batch", BATCH, text(batch_text(KAFKA, "-"))),
    "unknown offset": ("unknown_offset", BATCH, text(batch_text(offset(4, source_version=9)))),
    "unknown offset log": ("unknown_offset", BATCH, text(batch_text(offset(4), log="v9"))),
    "half-written batch": ("corrupt", BATCH, text("v1\n{")),
    "lost batch": ("corrupt", BATCH),
    "half-written commit": ("corrupt", COMMIT(5), text('{"add":{"path":"5')),
    "half-written head": ("corrupt", COMMIT(6), text("")),
    "log cleaned up": ("log_cleaned", COMMIT(4)),
    "folder in the place of a file": ("store", BATCH, Path.mkdir),
}
CASES = [(mistake, first_look) for mistake in MISTAKES for first_look in ("before", "after")]
CASES.remove(("half-written commit", "before"))  # it was read when it was whole


@pytest.mark.parametrize(("mistake", "first_look"), CASES)
def test_mistake_has_its_own_reason_and_sentence_and_heals(
    files: Files, healthy: Files, mistake: str, first_look: str
) -> None:
    reason, path, *make = MISTAKES[mistake]
    if make == [Path.mkdir] and files.locate is url:
        reason = "corrupt"  # in a bucket, a folder is not in the way of a file
    reports: list[str] = []
    (files.log / f"{5:020d}.checkpoint.parquet").touch()  # without it, a missing version before it would be a hole
    consumers = [
        Consumer("fraud", "orders", files.locate(files.checkpoint)),
        Consumer("fraud", "returns", files.locate(healthy.checkpoint)),
    ]
    watcher = Watcher(
        {"orders": files.locate(files.table), "returns": files.locate(healthy.table)}, consumers, report=reports.append
    )
    if first_look == "before":
        assert reasons(watcher) == [None, None]
        assert reports == []
    with replaced(files.table.parent / path, *make):
        soon(lambda: reasons(watcher), [reason, None])
        assert reasons(watcher) == [reason, None]
        assert reports == [f"fraud of orders: {watcher.states[0].consumers[0].error} ({reason})"]
        assert dict(watcher.errors["orders"]) == {("fraud", reason): 2}
    soon(lambda: reasons(watcher), [None, None])
    backlog = watcher.states[0].consumers[0].backlog
    assert backlog
    assert (backlog.version, backlog.versions, backlog.amount) == (3, 3, Amount(3, 300, 3))
    assert reports[1:] == ["fraud of orders: known again"]


def test_log_cleaned_up_below_an_up_to_date_consumer(files: Files) -> None:
    files.read(1, offset(7))
    files.checksum(6)
    for version in range(6):
        files.commit_path(version).unlink()
    assert lag(files.watcher()) == (6, 0)


@pytest.mark.parametrize("version", [3, 9])
def test_table_created_again_with_fewer_or_more_versions(files: Files, version: int) -> None:
    watcher = files.watcher()
    assert lag(watcher) == (3, 3)
    shutil.rmtree(files.table)
    files.log.mkdir(parents=True)
    files.commit(0, metadata(OTHER))
    files.append(1, version)
    assert reasons(watcher) == ["wrong_table"]
    files.read(1, offset(3, table_id=OTHER))
    assert lag(watcher) == (2, version - 2)


def test_consumer_ahead_of_the_log_gets_no_advice_until_nothing_else_explains_it(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.read(1, offset(7))
    watcher = files.watcher()
    assert lag(watcher) == (6, 0)
    for version in (5, 6):
        files.commit_path(version).unlink()
    assert reasons(watcher) == ["ahead"]
    assert "wait" in str(watcher.states[0].consumers[0].error)
    monkeypatch.setattr("delta_watch.lags.AHEAD_LIMIT", 0)
    assert reasons(watcher) == ["wrong_table"]
    files.append(5, 6)
    assert lag(watcher) == (6, 0)


@pytest.mark.parametrize("in_checksum", [True, False])
def test_catalog_managed_table_has_the_versions_that_its_consumers_have_read(files: Files, in_checksum: bool) -> None:
    protocol = {"minReaderVersion": 3, "minWriterVersion": 7, "writerFeatures": ["catalogManaged"]}
    if in_checksum:
        files.checksum(6, protocol=protocol)
    else:
        files.commit(0, metadata(ID), {"protocol": protocol})
    shutil.copytree(files.checkpoint, files.table.parent / "late")
    files.read(1, offset(9))
    consumers = [Consumer(name, "orders", files.locate(files.table.parent / name)) for name in ("checkpoint", "late")]
    watcher = Watcher({"orders": files.locate(files.table)}, consumers)
    assert reasons(watcher) == [None, None]
    (table,) = watcher.states
    assert table.head == Head(8, None)
    ahead, late = [state.backlog for state in table.consumers]
    assert ahead == Backlog(8, 0, None, NOTHING, 0)
    assert late
    assert (late.version, late.versions, late.since is None, late.amount, late.rewrites) == (3, 5, False, None, None)
    files.append(7, 9)
    watcher.run_round()
    assert [state.backlog.versions for state in watcher.states[0].consumers if state.backlog] == [1, 6]
    assert watcher.states[0].consumers[1].backlog.amount == Amount(6, 600, 6)  # type: ignore[union-attr]


def test_checkpoint_started_again_at_the_same_number(files: Files) -> None:
    watcher = files.watcher()
    assert lag(watcher) == (3, 3)
    shutil.rmtree(files.checkpoint / "offsets")
    (files.checkpoint / "offsets").mkdir()
    files.plan(0, offset(6))
    assert lag(watcher) == (5, 1)


def test_table_replaced_in_its_own_log(files: Files) -> None:
    files.commit(7, metadata(OTHER))
    assert reasons(files.watcher()) == ["wrong_table"]
    files.read(1, offset(8, table_id=OTHER))
    assert lag(files.watcher()) == (7, 0)


@pytest.mark.parametrize("has_checksum", [True, False])
def test_id_of_a_table_whose_log_no_longer_starts_at_0(files: Files, has_checksum: bool) -> None:
    files.commit_path(0).unlink()
    if has_checksum:
        files.checksum(6)
    assert reasons(files.watcher()) == [None if has_checksum else "unknown_id"]
    files.plan(0, offset(4, table_id=OTHER))
    assert reasons(files.watcher()) == ["wrong_table" if has_checksum else "unknown_id"]
    files.plan(0, KAFKA)
    assert reasons(files.watcher()) == ["not_delta"]


def test_query_is_no_consumer_of_a_table_whose_id_is_nowhere(files: Files) -> None:
    files.commit_path(0).unlink()
    discovery = Discovery("orders", files.locate(files.table.parent / "*"))
    watcher = Watcher({"orders": files.locate(files.table)}, [], [discovery])
    assert reasons(watcher) == []
    assert watcher.states[0].error
    assert watcher.states[0].error.reason == "unknown_id"


def test_hole_in_the_log_is_no_head(files: Files) -> None:
    files.append(10, 14)
    (files.log / "_last_checkpoint").write_text('{"version": 5}')
    error = look(files.watcher()).error
    assert str(error) == (
        f"a version between 5 and 14 is missing in {files.locate(files.log)}; restore it if this persists"
    )
    (files.log / f"{10:020d}.checkpoint.parquet").touch()
    files.read(1, offset(12))
    assert lag(files.watcher()) == (11, 3)


@pytest.mark.parametrize("content", [b"", b"PAR", b"PAR1 damaged PAR1", b"{}"])
def test_damaged_checkpoint_below_an_initial_snapshot(files: Files, content: bytes) -> None:
    """The versions stay known, and a consumer that has left its initial snapshot is not affected."""
    files.read(1, offset(4, 2, initial=True))
    files.commit_path(0).unlink()
    damaged = files.log / f"{3:020d}.checkpoint.parquet"
    damaged.write_bytes(content)
    files.checksum(6)
    state = look(files.watcher())
    assert state.backlog
    assert (state.backlog.versions, state.backlog.amount) == (7, None)
    assert state.error
    assert str(state.error).startswith(f"{files.locate(files.log)}/{damaged.name} cannot be read (")
    files.read(2, offset(5))
    assert lag(files.watcher()) == (4, 2)


def test_garbage_below_an_initial_snapshot(files: Files) -> None:
    files.read(1, offset(4, 2, initial=True))
    watcher = files.watcher()
    with replaced(files.commit_path(2), text("{")):
        assert str(look(watcher).error).startswith(f"{files.locate(files.log)}/{2:020d}.json is not a complete commit")
    assert reasons(watcher) == [None]


@DISK
def test_deleted_batch_that_was_just_listed(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = files.watcher()
    look(watcher)
    files.read(1, offset(5))
    read = store.LocalFolder.read

    async def too_late(self: store.LocalFolder, name: str) -> store.File:
        if name == "1":
            (files.checkpoint / "offsets" / "1").unlink()
            files.read(2, offset(6))
        return await read(self, name)

    monkeypatch.setattr(store.LocalFolder, "read", too_late)
    assert lag(watcher) == (5, 1)
    files.read(3, offset(7))
    assert lag(watcher) == (6, 0)


def test_unforeseen_error_ends_no_round(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = files.watcher()
    monkeypatch.setattr(watcher.inventory.tables["orders"].table, "find_head", lambda: 1 / 0)
    error = look(watcher).error
    assert str(error) == "the table orders cannot be understood (ZeroDivisionError: division by zero)"


# What hangs

LIMIT = 1.0


@DISK
@pytest.mark.parametrize(
    ("path", "expected"),
    [(COMMIT(6), ["timeout", "timeout", None]), (BATCH, ["timeout", None, None])],
    ids=["table", "checkpoint"],
)
def test_what_hangs_is_unknown_and_holds_up_nothing_else(
    files: Files, healthy: Files, tmp_path: Path, path: str, expected: list[str | None]
) -> None:
    shutil.copytree(files.checkpoint, tmp_path / "search")
    consumers = [Consumer(name, "orders", str(tmp_path / name)) for name in ("checkpoint", "search")]
    consumers.append(Consumer("other", "returns", files.locate(healthy.checkpoint)))
    watcher = Watcher(
        {"orders": files.locate(files.table), "returns": files.locate(healthy.table)}, consumers, time_limit=LIMIT
    )
    with replaced(tmp_path / path, os.mkfifo):
        assert reasons(watcher) == expected
        for _ in range(2):
            start = time.monotonic()
            assert reasons(watcher) == expected
            assert time.monotonic() - start < LIMIT  # it is not waited for again
    wait_until_equal(lambda: reasons(watcher), [None] * 3)


def test_many_that_hang_hold_up_no_other(tmp_path: Path) -> None:
    made = [Files(tmp_path / str(number)) for number in range(12)]
    for files in made:
        files.read(0, offset(1))
    consumers = [Consumer("c", str(number), files.locate(files.checkpoint)) for number, files in enumerate(made)]
    tables = {str(number): files.locate(files.table) for number, files in enumerate(made)}
    watcher = Watcher(tables, consumers, time_limit=30)
    thread = Thread(target=watcher.run_round)
    with ExitStack() as pipes:
        for files in made[:11]:
            pipes.enter_context(replaced(files.checkpoint / "offsets" / "0", os.mkfifo))
        thread.start()
        # Long before the time limit.
        wait_until_equal(lambda: [state.name for state in watcher.states], ["11"], limit=10)
    thread.join(30)
    assert not thread.is_alive()


# What is discovered


def test_discovered_checkpoints_come_and_go(files: Files, healthy: Files, tmp_path: Path) -> None:
    jobs = tmp_path / "jobs"
    discovery = Discovery("orders", files.locate(jobs / "*/checkpoint"))
    named = Consumer("fraud", "orders", files.locate(jobs / "fraud" / "checkpoint"))
    watcher = Watcher({"orders": files.locate(files.table)}, [named], [discovery], discovery_interval=0)

    def found() -> dict[str, str | None]:
        watcher.run_round()
        states = watcher.states[0].consumers
        return {state.consumer.name: state.error.reason if state.error else None for state in states}

    assert found() == {"fraud": "missing"}
    for name, source in {"fraud": files, "search": files, "other": healthy, ".hidden": files}.items():
        shutil.copytree(source.checkpoint, jobs / name / "checkpoint")
    (jobs / "empty" / "checkpoint").mkdir(parents=True)
    (jobs / "without").mkdir()
    soon(found, {"fraud": None, "search": None})
    (jobs / "search" / "checkpoint" / "commits" / "0").unlink()
    soon(found, {"fraud": None, "search": "no_batch"})
    shutil.rmtree(jobs / "search")
    assert found() == {"fraud": None}
    assert not any(consumer == "search" for consumer, _ in watcher.errors["orders"])


def test_consumers_stay_while_nobody_can_list_them(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(files.checkpoint, tmp_path / "eu" / "jobs" / "fraud_7")
    reports: list[str] = []
    discovery = Discovery("orders", files.locate(tmp_path / "*/jobs/fraud_?"))
    tables = {"orders": files.locate(files.table)}
    watcher = Watcher(tables, [], [discovery], discovery_interval=0, report=reports.append)
    assert look(watcher).consumer.name == "eu/fraud_7"  # what the wildcards match

    async def denied(self: store.Folder, paths: Sequence[str]) -> list[list[str]]:
        raise WatchError("permission", f"{self} may not be read; give this user the permission")

    with monkeypatch.context() as patch:
        for kind in (store.LocalFolder, store.ObjectFolder):
            patch.setattr(kind, "folders", denied)
        for _ in range(2):
            assert lag(watcher) == (3, 3)
        assert watcher.states[0].error
        assert dict(watcher.errors["orders"]) == {("", "permission"): 2}
    assert lag(watcher) == (3, 3)
    assert watcher.states[0].error is None
    assert reports == [
        f"orders: {files.locate(tmp_path)} may not be read; give this user the permission (permission)",
        "orders: known again",
    ]


def test_folders_of_the_same_name(files: Files, tmp_path: Path) -> None:
    for place in ("a/fraud", "b/fraud", "a/search"):
        shutil.copytree(files.checkpoint, tmp_path / place)
    found = [Discovery("orders", files.locate(tmp_path / pattern)) for pattern in ("a/*", "a/f*", "b/*")]
    watcher = Watcher({"orders": files.locate(files.table)}, [], found)
    assert reasons(watcher) == [None] * 3
    second = f"fraud ({files.locate(tmp_path / 'b/fraud')})"
    assert [state.consumer.name for state in watcher.states[0].consumers] == ["fraud", "search", second]


@DISK
def test_folder_whose_name_is_not_utf_8(files: Files, tmp_path: Path) -> None:
    shutil.copytree(files.checkpoint, tmp_path / "jobs" / os.fsdecode(b"caf\xe9"))
    shutil.copytree(files.checkpoint, tmp_path / "jobs" / os.fsdecode(b"lost\xe9"))
    (tmp_path / "jobs" / os.fsdecode(b"lost\xe9") / "offsets" / "0").unlink()
    reports: list[str] = []
    discovery = Discovery("orders", str(tmp_path / "jobs/*"))
    watcher = Watcher({"orders": str(files.table)}, [], [discovery], report=reports.append)
    assert reasons(watcher) == [None, "corrupt"]
    assert [state.consumer.name for state in watcher.states[0].consumers] == ["caf\\xe9", "lost\\xe9"]
    assert "\n".join(reports).encode()
    assert b"caf\\\\xe9" in generate_latest(WatcherCollector(watcher))  # the text format doubles the backslash
    assert format_table(list(lags(watcher.states, 0))).encode()


def test_consumers_that_are_found_late_are_kept(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(files.checkpoint, tmp_path / "jobs" / "fraud")
    discovery = Discovery("orders", files.locate(tmp_path / "jobs/*"))
    watcher = Watcher({"orders": files.locate(files.table)}, [], [discovery], time_limit=0.5)
    released, kind = Event(), type(watcher.inventory.tables["orders"].table.folder)
    folders = kind.folders

    async def slow(self: Any, paths: Sequence[str]) -> list[list[str]]:
        if self.is_local:
            released.wait(20)
        while not released.is_set():
            await asyncio.sleep(0.01)
        return await folders(self, paths)

    monkeypatch.setattr(kind, "folders", slow)
    assert reasons(watcher) == []
    assert "is still being read" in str(watcher.states[0].error)
    released.set()
    wait_until_equal(lambda: reasons(watcher), [None])
    assert watcher.states[0].error is None


@DISK
def test_single_look_without_a_time_limit_reports_what_it_waits_for(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("delta_watch.watcher.TIME_LIMIT", 0.1)
    reports: SimpleQueue[str] = SimpleQueue()
    watcher = files.watcher(time_limit=None, report=reports.put)
    with replaced(files.commit_path(6), os.mkfifo):
        thread = Thread(target=watcher.run_round)
        thread.start()
        assert reports.get(timeout=10) == "Waiting for the table orders …"
    thread.join(10)
    assert lag(watcher) == (3, 3)
