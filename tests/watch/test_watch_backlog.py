"""What lies between a position and the head, by hand-made commits."""

from delta_watch.backlog import Amount, Backlog, Reads, unread
from delta_watch.commits import Commit
from delta_watch.offsets import Position
from tests.helpers.handmade_tables import Action, add, commit_text, parse_commit, remove, snapshot

import pytest


def commit(version: int, *actions: Action) -> Commit:
    return parse_commit(commit_text(actions or [{"commitInfo": {}}]).encode(), 1000.0 + version)


COMMITS = {
    4: commit(4, add("a", rows=1, size=10), add("b", rows=2, size=20), add("c", rows=4, size=40)),
    5: commit(5),
    6: commit(6, add("d", rows=8, size=80)),
}
SNAPSHOT = snapshot([commit_text([add("a", rows=1, size=10), add("b", rows=2, size=20)]).encode()])
CDC: Action = {"cdc": {"path": "c", "size": 7}}


def at(version: int, index: int = -1) -> Position:
    return Position(True, version, index)


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        (at(7), Backlog(6, 0, None, Amount(0, 0, 0), 0)),
        (at(4), Backlog(3, 3, 1004.0, Amount(4, 150, 15), 0)),
        # A commit read in part counts as unread, but only its rest is in the backlog. Its last file completes it.
        (at(4, 0), Backlog(3, 3, 1004.0, Amount(3, 140, 14), 0)),
        (at(4, 1), Backlog(3, 3, 1004.0, Amount(2, 120, 12), 0)),
        (at(4, 2), Backlog(4, 2, 1005.0, Amount(1, 80, 8), 0)),
        # A commit without files is a version all the same.
        (at(5), Backlog(4, 2, 1005.0, Amount(1, 80, 8), 0)),
        (Position(False, 4, 0), Backlog(-1, 7, 1004.0, Amount(2, 100, 10), 0)),
    ],
)
def test_backlog_from_a_position_to_the_head(position: Position, expected: Backlog) -> None:
    assert unread([position], 6, COMMITS, {4: SNAPSHOT}) == expected


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


def test_initial_snapshot_whose_files_are_unknown() -> None:
    backlog = unread([Position(False, 4, 0)], 6, {5: COMMITS[5], 6: COMMITS[6]}, {4: None})
    assert backlog == Backlog(-1, 7, None, None, 0)


def test_table_that_is_read_twice_counts_the_slower_source_and_the_files_of_both() -> None:
    assert unread([at(6), at(7)], 6, COMMITS, {}) == Backlog(5, 1, 1006.0, Amount(1, 80, 8), 0)
    assert unread([at(6), at(4, 1)], 6, COMMITS, {}) == Backlog(3, 3, 1004.0, Amount(3, 200, 20), 0)
