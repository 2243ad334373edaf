"""In a lake, tables and checkpoints are found, and matched by the tables' ids."""

import asyncio
import os
import shutil
from pathlib import Path
from typing import Any

from delta_watch.errors import WatchError
from delta_watch.exporter import WatcherCollector
from delta_watch.lake import Lake, walk
from delta_watch.store import open_folder
from delta_watch.watcher import Discovery, Watcher
from tests.helpers.bucket_server import url
from tests.helpers.handmade_tables import KAFKA, OTHER, PLANNED, Files, batch_text, offset

import pytest

Lags = dict[tuple[str, str], int | str]


@pytest.fixture(params=[str, url], ids=["disk", "bucket"])
def files(request: pytest.FixtureRequest, files: Files) -> Files:
    if request.param is url:
        request.getfixturevalue("bucket")
    files.locate = request.param
    return files


def watcher(*paths: str, reported: list[str] | None = None, **options: Any) -> Watcher:
    reported = [] if reported is None else reported
    lakes = [Lake(path, **{key: options.pop(key) for key in ("exclude", "depth") if key in options}) for path in paths]
    return Watcher({}, [], discovery_interval=0, lakes=lakes, report=reported.append, **options)


def lags(watcher: Watcher) -> Lags:
    """Run a round and return the lag of each consumer, or why it is unknown, by table and consumer."""
    watcher.run_round()
    return {
        (table.name, state.consumer.name): state.error.reason if state.error else state.backlog.versions  # type: ignore[union-attr]
        for table in watcher.states
        for state in table.consumers
    }


def copy(files: Files, name: str, *sources: str) -> Path:
    """Make a checkpoint at this path in the lake, whose query has read these sources."""
    folder = files.table.parent / name
    shutil.copytree(files.checkpoint, folder)
    (folder / "offsets" / "0").write_text(batch_text(*sources))
    return folder


def test_consumers_come_and_go_without_a_restart(files: Files) -> None:
    root = files.table.parent
    watched = watcher(files.locate(root))
    assert lags(watched) == {("table", "checkpoint"): 3}
    other = Files(root / "area" / "other", OTHER, files.locate)
    other.read(0, offset(1, table_id=OTHER))
    copy(files, "jobs/both", offset(6), offset(0, table_id=OTHER))
    copy(files, "table/_checkpoints/inside", offset(5))
    copy(files, "jobs/kafka", KAFKA)
    expected = {
        ("table", "checkpoint"): 3,
        ("table", "jobs/both"): 1,
        ("table", "table/_checkpoints/inside"): 2,
        ("area/other/table", "area/other/checkpoint"): 0,
        ("area/other/table", "jobs/both"): 1,
    }
    assert lags(watched) == expected
    shutil.rmtree(root / "area")
    shutil.rmtree(root / "table" / "_checkpoints")
    assert lags(watched) == {("table", "checkpoint"): 3, ("table", "jobs/both"): 1}
    files.append(7, 7)
    assert lags(watched) == {("table", "checkpoint"): 4, ("table", "jobs/both"): 2}
    assert watched.inventory.unmatched == {files.locate(root / "jobs" / "both"): {OTHER}}


def test_query_whose_table_is_not_found_is_reported_once(files: Files) -> None:
    copy(files, "lost", offset(3, table_id=OTHER))
    reported: list[str] = []
    watched = watcher(files.locate(files.table.parent), reported=reported)
    assert lags(watched) == lags(watched) == {("table", "checkpoint"): 3}
    lost = files.locate(files.table.parent / "lost")
    assert reported == [f"{lost} reads the table with the id {OTHER}, which was not found"]
    samples = [sample for metric in WatcherCollector(watched).collect() for sample in metric.samples]
    values = {(sample.name, *sample.labels.values()): sample.value for sample in samples}
    assert values["delta_watch_unmatched_checkpoints",] == 1
    assert values["delta_watch_discoveries_total", "success"] == 2


def test_tables_and_checkpoints_of_several_targets(files: Files) -> None:
    root = files.table.parent
    assert lags(watcher(files.locate(files.table), files.locate(files.checkpoint))) == {("table", "checkpoint"): 3}
    overlapping = watcher(files.locate(root), files.locate(files.table), files.locate(root))
    assert lags(overlapping) == {("table", "checkpoint"): 3}
    configured = Watcher({"orders": files.locate(files.table)}, [], lakes=[Lake(files.locate(root))])
    assert lags(configured) == {("orders", "checkpoint"): 3}


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({}, {"a/job", "a/b/job", "flow"}),
        ({"depth": 2}, {"a/job", "flow"}),
        ({"exclude": ("a/b", "fl*")}, {"a/job"}),
        ({"depth": 0}, set()),
    ],
)
def test_where_it_looks(files: Files, options: dict[str, Any], found: set[str]) -> None:
    """Of the runs of a pipeline, only the last one is a consumer."""
    for name in ("a/job", "a/b/job", "flow/0", "flow/2", "flow/10", "table/day=1/job", "table/Zk/job", ".hidden/job"):
        copy(files, name, offset(4 if name == "flow/10" else 2))
    shutil.rmtree(files.checkpoint)
    seen = lags(watcher(files.locate(files.table.parent), **options))
    assert {name for _, name in seen} == found
    assert seen.get(("table", "flow"), 3) == 3


def test_runs_in_a_pattern(files: Files) -> None:
    for run in ("0", "2", "10", "old"):
        copy(files, f"flows/daily/{run}", offset(4 if run == "10" else 2))
    pattern = Discovery("orders", files.locate(files.table.parent / "flows/*/{run}"))
    assert lags(Watcher({"orders": files.locate(files.table)}, [], [pattern])) == {("orders", "daily"): 3}


def test_links_in_a_circle(files: Files) -> None:
    root = files.table.parent
    files.locate = str
    for name in ("again", "table/link"):
        os.symlink(root, root / name)
    found = asyncio.run(walk(open_folder(str(root)), Lake(str(root), depth=20)))
    assert (found.tables, found.checkpoints, found.errors) == (["table"], ["checkpoint"], [])


def test_folder_that_cannot_be_listed(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of the lake is watched, and a sentence says what is missing."""
    folder = type(open_folder(files.locate(files.table)))
    names = folder.folders

    async def folders(self: Any, paths: Any) -> Any:
        if "private" in paths:
            raise WatchError("permission", f"{self}/private may not be read; give this user the permission")
        return await names(self, paths)

    (files.table.parent / "private" / "x").mkdir(parents=True)
    (files.table.parent / "private" / "x" / "file").touch()
    monkeypatch.setattr(folder, "folders", folders)
    reported: list[str] = []
    watched = watcher(files.locate(files.table.parent), reported=reported)
    assert lags(watched) == lags(watched) == {("table", "checkpoint"): 3}
    assert [problem.reason for problem in watched.inventory.problems.values() if problem] == ["permission"]
    assert len(reported) == 1
    monkeypatch.undo()


def test_lake_without_a_table(files: Files) -> None:
    reported: list[str] = []
    place = files.locate(files.table.parent / "none")
    watched = watcher(place, reported=reported)
    assert lags(watched) == {}
    problem = f"there is neither a Delta table nor a checkpoint in {place}; check the path (not_a_table)"
    assert reported == [f"{place}: {problem}"]


def test_stale_consumer_is_left_out_while_it_is_behind(files: Files) -> None:
    os.utime(files.checkpoint / "commits" / "0", (PLANNED, PLANNED))
    reported: list[str] = []
    watched = watcher(files.locate(files.table.parent), reported=reported, stale_after=3600)
    assert lags(watched) == lags(watched) == {}
    assert reported == ["checkpoint of table: left out, because it is stale"]
    files.read(1, offset(5))
    assert lags(watched) == {("table", "checkpoint"): 2}


def test_shards_divide_the_tables_of_a_lake(files: Files) -> None:
    root = files.table.parent
    for number in range(5):
        Files(root / f"t{number}", f"id-{number}")
    parts = [watcher(files.locate(root), is_ours=lambda name, part=part: hash(name) % 2 == part) for part in (0, 1)]
    seen = []
    for part in parts:
        part.run_round()
        seen.append({table.name for table in part.states})
    assert seen[0] | seen[1] == {"table", *(f"t{number}/table" for number in range(5))}
    assert not seen[0] & seen[1]
