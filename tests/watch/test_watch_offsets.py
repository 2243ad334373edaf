"""The files of a checkpoint say where each Delta source will continue."""

from delta_watch.errors import WatchError
from delta_watch.offsets import Batch, Position, parse_batch, positions, table_ids
from tests.helpers.handmade_tables import ID, KAFKA, OTHER, PLANNED, batch_text, offset

import pytest


def parse(text: str) -> Batch:
    return parse_batch(text.encode())


def reason(text: str, table_id: str = ID) -> str:
    with pytest.raises(WatchError) as caught:
        positions(parse(text), table_id)
    return caught.value.reason


@pytest.mark.parametrize("log", ["v1", "v2"])
def test_both_versions_of_the_offset_log_give_the_same_batch(log: str) -> None:
    batch = parse(batch_text(KAFKA, offset(4), "-", log=log))
    assert batch.planned == PLANNED
    assert batch.offsets[0] == {"topic": {"0": 12}}
    assert batch.offsets[2] is None
    assert positions(batch, ID) == (Position(in_commits=True, version=4, index=-1),)


def test_named_sources_of_the_second_version() -> None:
    text = batch_text(log="v2") + f"\norders:{offset(4)}\nreturns:{offset(2, table_id=OTHER)}"
    assert positions(parse(text), OTHER) == (Position(True, 2, -1),)


@pytest.mark.parametrize(("source_version", "index"), [(1, -1), (3, -100), (3, -20), (3, -19)])
def test_before_the_first_file_of_a_version(source_version: int, index: int) -> None:
    batch = parse(batch_text(offset(4, index, source_version=source_version)))
    assert positions(batch, ID) == (Position(True, 4, -1),)


def test_last_version_read_completely() -> None:
    assert Position(True, 4, -1).last_read == 3
    assert Position(True, 4, 7).last_read == 3
    assert Position(True, 0, -1).last_read == -1
    assert Position(False, 4, 7).last_read == -1


def test_order_is_that_of_reading() -> None:
    in_order = [Position(False, 9, 0), Position(False, 9, 3), Position(True, 2, -1), Position(True, 2, 0)]
    assert sorted([in_order[2], in_order[1], in_order[3], in_order[0]]) == in_order


def test_each_source_has_its_table() -> None:
    batch = parse(batch_text(offset(4), KAFKA, offset(9, 2, OTHER), offset(5)))
    assert table_ids(batch) == {ID, OTHER}
    assert positions(batch, OTHER) == (Position(True, 9, 2),)
    assert positions(batch, ID) == (Position(True, 4, -1), Position(True, 5, -1))


def test_table_that_was_not_read() -> None:
    assert reason(batch_text(offset(4, table_id=OTHER))) == "wrong_table"
    assert reason(batch_text(KAFKA)) == "not_delta"
    assert reason(batch_text(KAFKA, "-")) == "no_batch"
    assert reason(batch_text(offset(4, table_id=OTHER), "-")) == "no_batch"


@pytest.mark.parametrize(
    "source",
    [
        offset(4, source_version=2),
        offset(4, source_version=4),
        offset(4).replace('"index":-1,', ""),
        offset(4).replace('"reservoirVersion":4', '"reservoirVersion":"four"'),
        offset(4).replace(',"isStartingVersion":false', ""),
    ],
)
def test_offset_of_an_unknown_format(source: str) -> None:
    assert reason(batch_text(source)) == "unknown_offset"


@pytest.mark.parametrize(
    "text",
    ["", "v1", "v1\n{}", "PK\x03\x04", "v1\nnonsense\n-", f"v1\n{{}}\n{offset(4)[:-9]}", "v1\n[]\n-", '{"v1": 1}'],
)
def test_half_written_or_garbage(text: str) -> None:
    assert reason(text) == "corrupt"


def test_batch_without_metadata_and_with_a_line_separator_inside_of_a_name() -> None:
    assert parse('v1\n\n{"topic\u2028":1}') == Batch(None, ({"topic\u2028": 1},))
