"""A watcher looks at tables and checkpoints as they change, go wrong and heal."""

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Thread

from delta_watch import store
from delta_watch.backlog import Amount, Backlog
from delta_watch.errors import WatchError
from delta_watch.watcher import Consumer, Discovery, Watcher
from tests.helpers.handmade_tables import (
    ID,
    PLANNED,
    Files,
    add,
    batch_text,
    commit_text,
    look,
    metadata,
    offset,
    remove,
)
from tests.helpers.workspace import wait_until_equal

import pytest

OTHER = "6a3f1a0e-0000-4000-8000-000000000002"
KAFKA = '{"topic":{"0":12}}'


def lag(watcher: Watcher) -> tuple[int, int]:
    """Make a round and return the version read and the lag."""
    backlog = look(watcher).backlog
    assert backlog
    return backlog.version, backlog.versions


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file was read."""
    count: Counter[str] = Counter()
    read = store.LocalFolder.read

    def counted(self: store.LocalFolder, name: str) -> store.File:
        count[f"{self}/{name}"] += 1
        return read(self, name)

    monkeypatch.setattr(store.LocalFolder, "read", counted)
    return count


# What it shows


def test_lag_backlog_and_head(files: Files) -> None:
    watcher = files.watcher()
    modified = files.commit_path(4).stat().st_mtime
    assert look(watcher).backlog == Backlog(3, 3, modified, Amount(3, 300, 3), 0)
    (state,) = watcher.states
    assert state.head
    assert state.head.version == 6
    assert state.head.timestamp == files.commit_path(6).stat().st_mtime


def test_writer_and_consumer_move_on(files: Files) -> None:
    watcher = files.watcher()
    assert lag(watcher) == (3, 3)
    files.append(7, 9)
    assert lag(watcher) == (3, 6)
    files.read(1, offset(9))
    assert lag(watcher) == (8, 1)
    files.read(2, offset(10))
    assert lag(watcher) == (9, 0)


def test_commit_in_part(files: Files) -> None:
    files.commit(7, add("a", rows=1), add("b", rows=2), add("c", rows=4))
    files.read(1, offset(7, 0))
    assert look(files.watcher()).backlog == Backlog(6, 1, files.commit_path(7).stat().st_mtime, Amount(2, 200, 6), 0)


def test_commits_that_remove_rows_count_apart(files: Files) -> None:
    files.commit(7, remove("6.parquet"), add("7.parquet", rows=4))
    backlog = look(files.watcher()).backlog
    assert backlog
    assert (backlog.amount, backlog.rewrites) == (Amount(3, 300, 3), 1)
    backlog = look(files.watcher(reads="rewrites")).backlog
    assert backlog
    assert (backlog.amount, backlog.rewrites) == (Amount(4, 400, 7), 1)


def test_initial_snapshot_in_part(files: Files) -> None:
    files.read(1, offset(4, 2, initial=True))
    watcher = files.watcher()
    backlog = look(watcher).backlog
    assert backlog
    assert (backlog.version, backlog.versions, backlog.amount) == (-1, 7, Amount(3, 300, 3))
    assert backlog.since == files.commit_path(4).stat().st_mtime
    files.read(2, offset(5))
    assert lag(watcher) == (4, 2)


def test_initial_snapshot_of_a_table_whose_log_no_longer_starts_at_0(files: Files) -> None:
    files.read(1, offset(4, 2, initial=True))
    (files.log / f"{6:020d}.crc").write_text(json.dumps({"metadata": {"id": ID}}))
    for version in range(5):
        since = files.commit_path(4).stat().st_mtime if version < 4 else None
        files.commit_path(version).unlink()
        state = look(files.watcher())
        assert state.error is None
        assert state.backlog
        assert (state.backlog.versions, state.backlog.since, state.backlog.amount) == (7, since, None)


def test_several_sources_in_one_query(files: Files, tmp_path: Path) -> None:
    other = Files(tmp_path / "other", OTHER)
    other.append(1, 2)
    files.read(1, KAFKA, offset(5), "-", offset(1, table_id=OTHER), offset(6))
    consumers = [Consumer("join", name, str(files.checkpoint)) for name in ("orders", "returns")]
    watcher = Watcher({"orders": str(files.table), "returns": str(other.table)}, consumers)
    watcher.round()
    orders, returns = (state.consumers[0].backlog for state in watcher.states)
    assert orders
    assert returns
    assert (orders.version, orders.versions, orders.amount) == (4, 2, Amount(3, 300, 3))
    assert (returns.version, returns.versions) == (0, 2)


def test_second_version_of_the_offset_log(files: Files) -> None:
    (files.checkpoint / "offsets" / "1").write_text(batch_text(KAFKA, offset(6), log="v2"))
    files.finish(1)
    assert lag(files.watcher()) == (5, 1)


def test_batch_that_runs(files: Files) -> None:
    watcher = files.watcher()
    progress = look(watcher).progress
    assert progress
    assert not progress.is_running
    files.plan(1, offset(7))
    state = look(watcher)
    assert state.progress
    assert (state.progress.is_running, state.progress.planned) == (True, PLANNED)
    assert state.backlog
    assert state.backlog.version == 3
    files.finish(1)
    progress = look(watcher).progress
    assert progress
    assert not progress.is_running


def test_half_written_plan_of_the_next_batch_hides_no_lag(files: Files) -> None:
    (files.checkpoint / "offsets" / "1").write_text("v1")
    state = look(files.watcher())
    assert state.backlog
    assert state.progress
    assert (state.progress.is_running, state.progress.planned) == (True, None)


def test_what_hadoop_leaves_in_the_folders(files: Files) -> None:
    for folder in (files.checkpoint / "offsets", files.checkpoint / "commits", files.log):
        for name in (".9.crc", ".9.tmp", "9.tmp", ".00000000000000000009.json.crc", "_commits", "x.json"):
            (folder / name).write_text("garbage")
    assert lag(files.watcher()) == (3, 3)


def test_table_without_a_consumer(files: Files) -> None:
    watcher = Watcher({"orders": str(files.table)}, [])
    watcher.round()
    (state,) = watcher.states
    assert state.head
    assert (state.head.version, state.consumers, state.error) == (6, (), None)


# Nothing is read twice, nothing is true of no moment


def test_no_file_is_read_twice(files: Files, reads: Counter[str]) -> None:
    watcher = files.watcher()
    files.plan(1, offset(6))
    for _ in range(3):
        look(watcher)
    files.append(7, 7)
    look(watcher)
    files.finish(1)
    look(watcher)
    hint = f"{files.log}/_last_checkpoint"
    assert {name for name, times in reads.items() if times > 1} - {hint} == set()
    assert f"{files.commit_path(3)}" not in reads


def test_round_without_news_reads_nothing(files: Files, reads: Counter[str]) -> None:
    watcher = files.watcher()
    look(watcher)
    reads.clear()
    look(watcher)
    assert reads == {}


def test_long_log_is_not_listed(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    (files.log / "_last_checkpoint").write_text('{"version":5,"size":9}')
    listed: list[str] = []
    names = store.LocalFolder.names

    def noted(self: store.LocalFolder) -> list[str]:
        listed.append(str(self))
        return names(self)

    monkeypatch.setattr(store.LocalFolder, "names", noted)
    assert lag(files.watcher()) == (3, 3)
    assert str(files.log) not in listed


def test_commits_that_nobody_needs_any_more_are_forgotten(files: Files) -> None:
    watcher = files.watcher()
    look(watcher)
    files.read(1, offset(7))
    look(watcher)
    known = watcher.tables["orders"]._known
    assert known
    assert known.commits.keys() == {6}


def test_position_is_read_before_the_head(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """A consumer that reads a new commit right after its checkpoint was read is not ahead of the table."""
    watcher = files.watcher()
    look(watcher)
    table = watcher.tables["orders"]
    find_head = table.find_head

    def meanwhile() -> bool:
        files.append(7, 7)
        files.read(1, offset(8))
        monkeypatch.setattr(table, "find_head", find_head)
        return find_head()

    monkeypatch.setattr(table, "find_head", meanwhile)
    # The lag of 4 between the old position and the new head was true at no moment.
    assert lag(watcher) == (7, 0)


def test_writer_faster_than_the_watcher_does_not_hold_it_up(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = files.watcher()
    table = watcher.tables["orders"]
    find_head, version = table.find_head, iter(range(7, 1000))

    def meanwhile() -> bool:
        files.append(new := next(version), new)
        return find_head()

    monkeypatch.setattr(table, "find_head", meanwhile)
    assert lag(watcher)[0] == 3


# What goes wrong has a reason of its own, and heals


def break_(path: Path, content: str = "{") -> Callable[[], None]:
    """Replace a file, and return what puts it back."""
    put_back = take_away(path)
    path.write_text(content)

    def restore() -> None:
        path.unlink()
        put_back()

    return restore


def take_away(path: Path) -> Callable[[], None]:
    """Rename a file or folder, and return what puts it back."""
    away = path.with_name(f"away from {path.name}")
    path.rename(away)

    def put_back() -> None:
        away.rename(path)

    return put_back


MISTAKES: dict[str, tuple[str, Callable[[Files], Callable[[], None]]]] = {
    "no table": ("not_a_table", lambda files: take_away(files.table)),
    "folder without a log": ("not_a_table", lambda files: take_away(files.log)),
    "no checkpoint": ("missing", lambda files: take_away(files.checkpoint)),
    "no finished batch": ("no_batch", lambda files: take_away(files.checkpoint / "commits" / "0")),
    "checkpoint of another table": (
        "wrong_table",
        lambda files: break_(files.checkpoint / "offsets" / "0", batch_text(offset(4, table_id=OTHER))),
    ),
    "query without Delta": (
        "not_delta",
        lambda files: break_(files.checkpoint / "offsets" / "0", batch_text(KAFKA)),
    ),
    "source that has read nothing": (
        "no_batch",
        lambda files: break_(files.checkpoint / "offsets" / "0", batch_text(KAFKA, "-")),
    ),
    "unknown offset": (
        "unknown_offset",
        lambda files: break_(files.checkpoint / "offsets" / "0", batch_text(offset(4, source_version=9))),
    ),
    "unknown offset log": (
        "unknown_offset",
        lambda files: break_(files.checkpoint / "offsets" / "0", batch_text(offset(4), log="v9")),
    ),
    "half-written batch": ("corrupt", lambda files: break_(files.checkpoint / "offsets" / "0", "v1\n{")),
    "lost batch": ("corrupt", lambda files: take_away(files.checkpoint / "offsets" / "0")),
    "half-written commit": ("corrupt", lambda files: break_(files.commit_path(5), '{"add":{"path":"5')),
    "half-written head": ("corrupt", lambda files: break_(files.commit_path(6), "")),
    "log cleaned up": ("log_cleaned", lambda files: take_away(files.commit_path(4))),
    "folder in the place of a file": ("store", lambda files: folder_instead(files.checkpoint / "offsets" / "0")),
}


def folder_instead(path: Path) -> Callable[[], None]:
    put_back = take_away(path)
    path.mkdir()

    def restore() -> None:
        path.rmdir()
        put_back()

    return restore


CASES = [(mistake, first_look) for mistake in MISTAKES for first_look in ("before", "after")]
CASES.remove(("half-written commit", "before"))  # it was read when it was whole


@pytest.mark.parametrize(("mistake", "first_look"), CASES)
def test_mistake_has_its_own_reason_and_sentence_and_heals(
    files: Files, tmp_path: Path, mistake: str, first_look: str
) -> None:
    reason, make = MISTAKES[mistake]
    healthy = Files(tmp_path / "healthy", OTHER)
    healthy.read(0, offset(1, table_id=OTHER))
    said: list[str] = []
    consumers = [
        Consumer("fraud", "orders", str(files.checkpoint)),
        Consumer("fraud", "returns", str(healthy.checkpoint)),
    ]
    watcher = Watcher({"orders": str(files.table), "returns": str(healthy.table)}, consumers, report=said.append)
    if first_look == "before":
        watcher.round()
        assert said == []
    put_back = make(files)
    for _ in range(2):
        watcher.round()
        orders, returns = watcher.states
        (state,) = orders.consumers
        assert state.error
        assert state.error.reason == reason
        assert returns.consumers[0].error is None
        assert returns.consumers[0].backlog
    (sentence,) = said
    assert sentence == f"fraud of orders: {state.error} ({reason})"
    assert dict(watcher.errors["orders"]) == {("fraud", reason): 2}
    put_back()
    watcher.round()
    healed = watcher.states[0].consumers[0]
    assert healed.error is None
    assert healed.backlog
    assert (healed.backlog.version, healed.backlog.versions) == (3, 3)
    assert healed.backlog.amount == Amount(3, 300, 3)
    assert said[1:] == ["fraud of orders: known again"]


def test_versions_stay_known_if_the_log_was_cleaned_up(files: Files) -> None:
    watcher = files.watcher()
    assert lag(watcher) == (3, 3)
    files.commit_path(4).unlink()
    backlog = look(watcher).backlog
    assert backlog
    assert (backlog.version, backlog.versions, backlog.since, backlog.amount) == (3, 3, None, None)


def test_log_cleaned_up_below_an_up_to_date_consumer(files: Files) -> None:
    files.read(1, offset(7))
    for version in range(6):
        files.commit_path(version).unlink()
    assert lag(files.watcher()) == (6, 0)


def test_table_created_again(files: Files) -> None:
    watcher = files.watcher()
    assert lag(watcher) == (3, 3)
    shutil.rmtree(files.table)
    files.log.mkdir(parents=True)
    files.commit(0, metadata(OTHER))
    files.append(1, 9)
    state = look(watcher)
    assert state.error
    assert state.error.reason == "wrong_table"
    files.read(1, offset(3, table_id=OTHER))
    assert lag(watcher) == (2, 7)


def test_table_created_again_with_fewer_versions(files: Files) -> None:
    watcher = files.watcher()
    look(watcher)
    shutil.rmtree(files.table)
    files.log.mkdir(parents=True)
    files.commit(0, metadata(OTHER))
    look(watcher)
    (state,) = watcher.states
    assert state.head
    assert state.head.version == 0


def test_table_restored_from_a_copy(files: Files) -> None:
    files.read(1, offset(7))
    watcher = files.watcher()
    assert lag(watcher) == (6, 0)
    for version in (5, 6):
        files.commit_path(version).unlink()
    state = look(watcher)
    assert state.error
    assert state.error.reason == "wrong_table"


def test_checkpoint_started_again_at_the_same_number(files: Files) -> None:
    watcher = files.watcher()
    assert lag(watcher) == (3, 3)
    shutil.rmtree(files.checkpoint / "offsets")
    (files.checkpoint / "offsets").mkdir()
    files.plan(0, offset(6))
    assert lag(watcher) == (5, 1)


def test_table_replaced_in_its_own_log(files: Files) -> None:
    files.commit(7, metadata(OTHER))
    state = look(files.watcher())
    assert state.error
    assert state.error.reason == "wrong_table"
    files.read(1, offset(8, table_id=OTHER))
    assert lag(files.watcher()) == (7, 0)


@pytest.mark.parametrize("has_checksum", [True, False])
def test_id_of_a_table_whose_log_no_longer_starts_at_0(files: Files, has_checksum: bool) -> None:
    files.commit_path(0).unlink()
    if has_checksum:
        (files.log / f"{6:020d}.crc").write_text(json.dumps({"metadata": {"id": ID}}))
    assert lag(files.watcher()) == (3, 3)
    files.plan(0, offset(4, table_id=OTHER))
    state = look(files.watcher())
    if has_checksum:
        assert state.error
        assert state.error.reason == "wrong_table"


def test_id_that_is_nowhere_cannot_be_guessed_if_the_query_reads_several_tables(files: Files) -> None:
    files.commit_path(0).unlink()
    files.plan(0, offset(4), offset(4, table_id=OTHER))
    state = look(files.watcher(report=lambda _: None))
    assert state.error
    assert state.error.reason == "wrong_table"
    files.plan(0, KAFKA)
    state = look(files.watcher(report=lambda _: None))
    assert state.error
    assert state.error.reason == "not_delta"


def test_garbage_below_an_initial_snapshot(files: Files) -> None:
    files.read(1, offset(4, 2, initial=True))
    put_back = break_(files.commit_path(2))
    watcher = files.watcher(report=lambda _: None)
    state = look(watcher)
    assert state.error
    assert str(state.error).startswith(f"a file in {files.log} is not a complete commit")
    put_back()
    assert look(watcher).error is None


def test_deleted_batch_that_was_just_listed(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = files.watcher()
    look(watcher)
    files.read(1, offset(5))
    read = store.LocalFolder.read

    def too_late(self: store.LocalFolder, name: str) -> store.File:
        if name == "1":
            (files.checkpoint / "offsets" / "1").unlink()
            files.read(2, offset(6))
        return read(self, name)

    monkeypatch.setattr(store.LocalFolder, "read", too_late)
    assert lag(watcher) == (5, 1)


def test_what_nobody_has_thought_of_ends_no_round(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = files.watcher()
    monkeypatch.setattr(watcher.tables["orders"], "find_head", lambda: 1 / 0)
    state = look(watcher)
    assert state.error
    assert "ZeroDivisionError" in str(state.error)
    assert "Traceback" not in str(state.error)


# What hangs


@contextmanager
def hanging(path: Path) -> Iterator[None]:
    """Put a pipe in the place of a file. Whoever opens it waits."""
    put_back = take_away(path)
    os.mkfifo(path)
    try:
        yield
    finally:
        pipe = path.rename(path.with_name("pipe"))
        put_back()
        with suppress(OSError):
            os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))  # lets the waiting thread go
        pipe.unlink()


LIMIT = 0.5


@pytest.mark.parametrize("what", ["table", "checkpoint"])
def test_what_hangs_is_unknown_and_holds_up_nothing_else(files: Files, tmp_path: Path, what: str) -> None:
    healthy = Files(tmp_path / "healthy", OTHER)
    healthy.read(0, offset(1, table_id=OTHER))
    consumers = [Consumer("fraud", "orders", str(files.checkpoint)), Consumer("x", "returns", str(healthy.checkpoint))]
    watcher = Watcher(
        {"orders": str(files.table), "returns": str(healthy.table)}, consumers, time_limit=LIMIT, report=lambda _: None
    )
    path = files.commit_path(6) if what == "table" else files.checkpoint / "offsets" / "0"
    with hanging(path):
        for turn in range(3):
            start = time.monotonic()
            watcher.round()
            orders, returns = watcher.states
            assert orders.consumers[0].error
            assert orders.consumers[0].error.reason == "timeout"
            assert returns.consumers[0].backlog
            if turn:
                assert time.monotonic() - start < LIMIT  # it is not waited for again
    wait_until_equal(lambda: _reasons(watcher), [None, None])


def _reasons(watcher: Watcher) -> list[str | None]:
    watcher.round()
    return [of.error.reason if of.error else None for state in watcher.states for of in state.consumers]


def test_hanging_consumer_holds_up_no_other_of_the_same_table(files: Files, tmp_path: Path) -> None:
    healthy = tmp_path / "healthy"
    shutil.copytree(files.checkpoint, healthy)
    consumers = [Consumer("hangs", "orders", str(files.checkpoint)), Consumer("reads", "orders", str(healthy))]
    watcher = Watcher({"orders": str(files.table)}, consumers, time_limit=LIMIT, report=lambda _: None)
    with hanging(files.checkpoint / "offsets" / "0"):
        watcher.round()
    hangs, reads = watcher.states[0].consumers
    assert isinstance(hangs.error, WatchError)
    assert reads.backlog


def test_many_that_hang_hold_up_no_other(tmp_path: Path) -> None:
    made = [Files(tmp_path / str(number)) for number in range(12)]
    for of in made:
        of.read(0, offset(1))
    consumers = [Consumer("c", str(number), str(of.checkpoint)) for number, of in enumerate(made)]
    tables = {str(number): str(of.table) for number, of in enumerate(made)}
    watcher = Watcher(tables, consumers, time_limit=30, report=lambda _: None)
    thread = Thread(target=watcher.round)
    with ExitStack() as pipes:
        for of in made[:11]:
            pipes.enter_context(hanging(of.checkpoint / "offsets" / "0"))
        thread.start()
        # Long before the time limit.
        wait_until_equal(lambda: [state.name for state in watcher.states], ["11"], limit=10)
    thread.join(30)
    assert not thread.is_alive()


# What is discovered


def test_discovered_checkpoints_come_and_go(files: Files, tmp_path: Path) -> None:
    jobs = tmp_path / "jobs"
    other = Files(tmp_path / "other", OTHER)
    other.read(0, offset(1, table_id=OTHER))

    def copy(name: str, of: Files) -> None:
        shutil.copytree(of.checkpoint, jobs / name / "checkpoint")

    discovery = Discovery("orders", str(jobs), "*/checkpoint")
    named = Consumer("fraud", "orders", str(jobs / "fraud" / "checkpoint"))
    watcher = Watcher({"orders": str(files.table)}, [named], [discovery], report=lambda _: None)

    def found() -> dict[str, str]:
        watcher.round()
        return {of.consumer.name: of.error.reason if of.error else "" for of in watcher.states[0].consumers}

    assert found() == {"fraud": "missing"}
    for name, of in {"fraud": files, "search": files, "other": other, ".hidden": files}.items():
        copy(name, of)
    (jobs / "empty" / "checkpoint").mkdir(parents=True)
    (jobs / "without").mkdir()
    assert found() == {"fraud": "", "search": ""}
    (jobs / "search" / "checkpoint" / "commits" / "0").unlink()
    assert found() == {"fraud": "", "search": "no_batch"}
    shutil.rmtree(jobs / "search")
    assert found() == {"fraud": ""}
    assert not any(consumer == "search" for consumer, _ in watcher.errors["orders"])


def test_consumers_stay_while_nobody_can_list_them(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(files.checkpoint, tmp_path / "jobs" / "fraud")
    said: list[str] = []
    watcher = Watcher(
        {"orders": str(files.table)}, [], [Discovery("orders", str(tmp_path / "jobs"), "*")], report=said.append
    )
    assert lag(watcher) == (3, 3)

    def denied(self: store.LocalFolder, pattern: str) -> list[str]:
        raise WatchError("permission", f"{self} may not be read; give this user the permission")

    with monkeypatch.context() as patch:
        patch.setattr(store.LocalFolder, "matching_folders", denied)
        for _ in range(2):
            assert lag(watcher) == (3, 3)
        assert watcher.states[0].error
        assert dict(watcher.errors["orders"]) == {("", "permission"): 2}
    assert lag(watcher) == (3, 3)
    assert watcher.states[0].error is None
    assert said == [
        f"orders: {tmp_path}/jobs may not be read; give this user the permission (permission)",
        "orders: known again",
    ]


def test_name_of_a_discovered_consumer_is_what_the_wildcards_match(files: Files, tmp_path: Path) -> None:
    shutil.copytree(files.checkpoint, tmp_path / "eu" / "jobs" / "fraud_7")
    watcher = Watcher({"orders": str(files.table)}, [], [Discovery("orders", str(tmp_path), "*/jobs/fraud_?")])
    assert look(watcher).consumer.name == "eu/fraud_7"


def test_garbage_commit_is_read_again_when_it_is_whole(files: Files) -> None:
    watcher = files.watcher()
    files.commit_path(7).write_text('{"add":')
    assert look(watcher).error
    files.commit_path(7).write_text(commit_text([add("7.parquet", rows=5)]))
    backlog = look(watcher).backlog
    assert backlog
    assert backlog.amount == Amount(4, 400, 8)
