"""A commit's file says which files it adds, how many rows they have, and whether it removes any."""

import json

from delta_watch.commits import (
    UNKNOWN,
    Checksum,
    Commit,
    Metadata,
    checkpoint_version,
    commit_name,
    commit_version,
    parse_checksum,
)
from delta_watch.errors import WatchError
from tests.helpers.handmade_tables import Action, add, commit_text, metadata, parse_commit, remove, snapshot

import pytest

DAY = 86400
MODIFIED = 1_700_000_000.5


def parse(*actions: Action) -> Commit:
    return parse_commit(commit_text(actions).encode(), MODIFIED)


def test_added_files_in_the_order_of_the_log() -> None:
    commit = parse(add("b", rows=3, size=30), {"txn": {"appId": "a"}}, add("a", rows=1, size=10))
    assert list(commit.added.sizes) == [30, 10]
    assert list(commit.added.rows) == [3, 1]
    assert not commit.rewrites
    assert commit.changed is commit.added


def test_files_that_only_rearrange_rows_count_neither_as_added_nor_as_removed() -> None:
    commit = parse(add("a", dataChange=False), remove("b", dataChange=False))
    assert list(commit.added.sizes) == list(commit.changed.sizes) == []
    assert not commit.rewrites


def test_deletion_vector_is_subtracted() -> None:
    commit = parse(remove("a"), add("a", rows=10, deleted=4))
    assert (list(commit.added.rows), commit.rewrites) == ([6], True)


@pytest.mark.parametrize(
    ("stats", "rows"),
    [
        (None, UNKNOWN),
        ("", UNKNOWN),
        ("{}", UNKNOWN),
        ('{"numRecords":0}', 0),
        (' { "numRecords" : 12 , "minValues":{}}', 12),
        ('{"minValues":{"numRecords":5},"numRecords":7}', 7),
        ('{"minValues":{"numRecords":5}}', UNKNOWN),
        ("null", UNKNOWN),
        ('{"numRecords":12,"minVal', UNKNOWN),
    ],
)
def test_rows_come_from_the_statistics(stats: str | None, rows: int) -> None:
    action = add("a", rows=None) if stats is None else add("a", rows=None, stats=stats)
    assert list(parse(action).added.rows) == [rows]


def test_rows_of_parsed_statistics() -> None:
    assert list(parse(add("a", rows=None, stats_parsed={"numRecords": 3})).added.rows) == [3]


@pytest.mark.parametrize(("updated", "read"), [("0", []), ("1", [100, 100]), (None, [100, 100])])
def test_change_feed_skips_a_merge_that_changes_no_row(updated: str | None, read: list[int]) -> None:
    metrics = {"numTargetRowsInserted": "0", "numTargetRowsUpdated": updated, "numTargetRowsDeleted": "0"}
    info = {"commitInfo": {"operation": "MERGE", "operationMetrics": metrics}}
    assert list(parse(info, remove("a"), add("b")).changed.sizes) == read


def test_commit_time() -> None:
    assert parse({"commitInfo": {"timestamp": 5, "inCommitTimestamp": 1500}}).timestamp == 1.5
    assert parse({"commitInfo": {"timestamp": 5}}).timestamp == MODIFIED
    assert parse(add("a")).timestamp == MODIFIED


def test_change_feed_reads_its_own_files_or_else_all_that_were_added_and_removed() -> None:
    cdc = {"cdc": {"path": "c", "size": 7, "dataChange": False}}
    assert list(parse(remove("a", size=5), add("b", size=6), cdc).changed.sizes) == [7]
    without = parse(remove("a", size=5), add("b", size=6)).changed
    assert list(without.sizes) == [5, 6]
    assert list(without.rows) == [UNKNOWN, 1]


def test_spaces_empty_lines_and_line_separators_inside_of_names_change_nothing() -> None:
    text = json.dumps(add("a\u2028b\x85c", rows=2), ensure_ascii=False, separators=(", ", " : "))
    assert list(parse_commit(f"\n{text}\n\n".encode(), MODIFIED).added.rows) == [2]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"add":{"path":"a","si',
        commit_text([add("a")]).encode()[:-9],
        b"\xff\xfe garbage",
        b"[1, 2]",
        b'{"add":{"dataChange":true}}',
        b'{"add":7}',
        b'{"add":{"path":"a","size":"big","dataChange":true}}',
    ],
)
def test_half_written_or_garbage(content: bytes) -> None:
    with pytest.raises(WatchError) as caught:
        parse_commit(content, MODIFIED)
    assert caught.value.reason == "corrupt"


def test_names_of_commits() -> None:
    assert commit_name(12) == "00000000000000000012.json"
    assert commit_version(commit_name(12)) == 12
    others = ["00000000000000000012.crc", "00000000000000000012.checkpoint.parquet", ".00000000000000000012.json.crc"]
    others += ["00000000000000000010.00000000000000000012.compacted.json", "_last_checkpoint", "_staged_commits"]
    assert [commit_version(name) for name in others] == [None] * len(others)


def test_snapshot_has_the_files_that_are_left_in_the_order_of_reading() -> None:
    files = snapshot(
        commit_text(actions).encode()
        for actions in (
            [add("late", rows=1, modificationTime=9), add("gone", rows=2)],
            [remove("gone"), add("b", rows=3, modificationTime=5), add("a", rows=4, modificationTime=5)],
            [remove("b"), add("b", rows=3, deleted=1, modificationTime=5)],
            [remove("a", dataChange=False), add("z", rows=4, modificationTime=7, dataChange=False)],
        )
    )
    assert list(files.rows) == [2, 4, 1]


def test_snapshot_keeps_a_file_apart_from_itself_with_another_deletion_vector() -> None:
    commits = [
        [add("a", rows=9)],
        [add("a", rows=9, deleted=1), remove("a")],
        [add("a", rows=9, deleted=2), remove("a", deleted=1)],
    ]
    assert list(snapshot(commit_text(actions).encode() for actions in commits).rows) == [7]


def test_checksum_has_metadata_and_protocol_and_last_checkpoint_a_version() -> None:
    for features, managed in ([], False), (["catalogOwned-preview"], True), (["catalogManaged"], True):
        content = json.dumps({"metadata": {"id": "x"}, "protocol": {"writerFeatures": features}}).encode()
        checksum = parse_checksum(content)
        assert (checksum.metadata, checksum.protocol and checksum.protocol.catalog_managed) == (Metadata("x"), managed)
    assert checkpoint_version(b'{"version":20,"size":7}') == 20
    for content in (b"", b"{}", b"[]", b'{"metadata":null}', b'{"version":null}'):
        assert (parse_checksum(content), checkpoint_version(content)) == (Checksum(), None)


@pytest.mark.parametrize(
    ("properties", "seconds"),
    [
        ({}, 30 * DAY),
        ({"delta.logRetentionDuration": "interval 30 days"}, 30 * DAY),
        ({"delta.logretentionduration": " INTERVAL 1 week 1 Day 2 hours"}, 8 * DAY + 7200),
        ({"delta.logRetentionDuration": "90 minutes"}, 5400),
        ({"delta.logRetentionDuration": "a month"}, None),
        ({"delta.logRetentionDuration": ""}, None),
        ({"delta.logRetentionDuration": "1 day", "delta.enableExpiredLogCleanup": "false"}, None),
    ],
)
def test_retention_of_the_log(properties: dict[str, str], seconds: int | None) -> None:
    (read, none) = parse(metadata("x", **properties)).metadata, parse(add("a")).metadata
    assert read
    assert (read.id, read.retention, none) == ("x", seconds, None)
