"""What lies between a position and the head, by hand-made commits."""

from delta_watch.backlog import Amount, Backlog, Reads, unread
from delta_watch.checkpoint import Position
from delta_watch.log import Commit, Files, parse_commit, snapshot
from tests.helpers.handmade_tables import Action, add, commit_text, remove

import pytest


def commit(version: int, *actions: Action) -> Commit:
    return parse_commit(commit_text(actions or [{"commitInfo": {}}]).encode(), 1000.0 + version)


COMMITS = {
    4: commit(4, add("a", rows=1, size=10), add("b", rows=2, size=20), add("c", rows=4, size=40)),
    5: commit(5),
    6: commit(6, add("d", rows=8, size=80)),
}
CDC: Action = {"cdc": {"path": "c", "size": 7}}


def at(version: int, index: int = -1) -> Position:
    return Position(True, version, index)


def test_up_to_date() -> None:
    assert unread([at(7)], 6, COMMITS, {}) == Backlog(6, 0, None, Amount(0, 0, 0), 0)


def test_everything() -> None:
    assert unread([at(4)], 6, COMMITS, {}) == Backlog(3, 3, 1004.0, Amount(4, 150, 15), 0)


@pytest.mark.parametrize(("index", "amount"), [(0, Amount(3, 140, 14)), (1, Amount(2, 120, 12))])
def test_commit_read_in_part_counts_as_unread_but_only_its_rest_is_in_the_backlog(index: int, amount: Amount) -> None:
    assert unread([at(4, index)], 6, COMMITS, {}) == Backlog(3, 3, 1004.0, amount, 0)


def test_last_file_of_a_commit_completes_it() -> None:
    assert unread([at(4, 2)], 6, COMMITS, {}) == Backlog(4, 2, 1005.0, Amount(1, 80, 8), 0)


def test_commits_without_files_are_versions_all_the_same() -> None:
    assert unread([at(5)], 5, {5: COMMITS[5]}, {}) == Backlog(4, 1, 1005.0, Amount(0, 0, 0), 0)


def test_rows_are_unknown_if_one_unread_file_has_no_statistics() -> None:
    commits = {7: commit(7, add("e", rows=None, size=5), add("f", size=6)), **COMMITS}
    assert unread([at(4)], 7, commits, {}).amount == Amount(6, 161, None)
    assert unread([at(7, 0)], 7, commits, {}).amount == Amount(1, 6, 1)


@pytest.mark.parametrize(
    ("reads", "amount"),
    [("appends", Amount(1, 80, 8)), ("rewrites", Amount(2, 90, 12)), ("change_feed", Amount(2, 87, None))],
)
def test_commits_that_remove_rows_count_apart(reads: Reads, amount: Amount) -> None:
    commits = {6: COMMITS[6], 7: commit(7, remove("d"), add("e", rows=4, size=10), CDC)}
    assert unread([at(6)], 7, commits, {}, reads) == Backlog(5, 2, 1006.0, amount, 1)


def test_rewrites_count_from_the_position_on() -> None:
    commits = {7: commit(7, remove("d"), add("e"), add("f")), 8: commit(8, remove("e"))}
    assert unread([at(7)], 8, commits, {}).rewrites == 2
    assert unread([at(7, 0)], 8, commits, {}).rewrites == 2
    assert unread([at(8)], 8, commits, {}).rewrites == 1
    assert unread([Position(False, 7, 0)], 8, commits, {7: SNAPSHOT}).rewrites == 1


def test_stream_of_the_change_feed_counts_all_changes_and_stops_on_the_last_one() -> None:
    commits = {6: commit(6, remove("d", size=1), add("e", size=2), add("f", size=4))}
    assert unread([at(6, 1)], 6, commits, {}, "change_feed").amount == Amount(1, 4, 1)
    assert unread([at(6, 2)], 6, commits, {}, "change_feed") == Backlog(6, 0, None, Amount(0, 0, 0), 0)


SNAPSHOT = snapshot([commit_text([add("a", rows=1, size=10), add("b", rows=2, size=20)]).encode()])


def test_initial_snapshot_in_part() -> None:
    snapshots: dict[int, Files | None] = {4: SNAPSHOT}
    backlog = unread([Position(False, 4, 0)], 6, COMMITS, snapshots)
    assert backlog == Backlog(-1, 7, 1004.0, Amount(2, 100, 10), 0)


def test_initial_snapshot_whose_files_are_unknown() -> None:
    backlog = unread([Position(False, 4, 0)], 6, {5: COMMITS[5], 6: COMMITS[6]}, {4: None})
    assert backlog == Backlog(-1, 7, None, None, 0)


def test_table_that_is_read_twice_counts_the_slower_source_and_the_files_of_both() -> None:
    assert unread([at(6), at(7)], 6, COMMITS, {}) == Backlog(5, 1, 1006.0, Amount(1, 80, 8), 0)
    assert unread([at(6), at(4, 1)], 6, COMMITS, {}) == Backlog(3, 3, 1004.0, Amount(3, 200, 20), 0)


def test_versions_are_known_even_if_commits_are_not() -> None:
    assert unread([at(4)], 6, None, {}) == Backlog(3, 3, None, None, None)
