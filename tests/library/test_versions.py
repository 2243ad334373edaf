"""The version that a stream has read, computed from its offsets. An error of one here is an error in every alert."""

import json
from typing import Any

from lag_detector.errors import LagDetectorError
from lag_detector.versions import last_read_version, next_version

import pytest

V2_SOURCE = "io.delta.spark.internal.v2.read.DeltaV2MicroBatchStream@"


def progress(*offsets: Any, table: str = "visits", start: Any = None) -> dict[str, Any]:
    description = f"DeltaSource[file:/{table}]"
    return {"sources": [{"description": description, "startOffset": start, "endOffset": offset} for offset in offsets]}


def v2_progress(*offsets: Any) -> dict[str, Any]:
    """Return a progress of DSv2, where each source has a description of its own and no path."""
    descriptions = [f"{V2_SOURCE}{0xD77BC5E + number:x}" for number in range(len(offsets))]
    return {
        "sources": [
            {"description": description, "startOffset": None, "endOffset": offset}
            for description, offset in zip(descriptions, offsets, strict=True)
        ]
    }


def delta_offset(
    version: int, index: int = -1, in_snapshot: bool = False, table: str = "visits", offset_format: int = 1
) -> dict[str, Any]:
    return {
        "sourceVersion": offset_format,
        "reservoirId": f"id of {table}",
        "reservoirVersion": version,
        "index": index,
        "isStartingVersion": in_snapshot,
    }


KAFKA = {"sources": [{"description": "KafkaV2[Subscribe[visits]]", "endOffset": {"visits": {"0": 4}}}]}

SHARED = {"description": "DeltaSharingSource", "startOffset": None, "endOffset": {"tableId": "x", "tableVersion": 4}}

KNOWN = [
    pytest.param(delta_offset(1), 0, id="empty-table"),
    pytest.param(delta_offset(4), 3, id="three-appends"),
    pytest.param(json.dumps(delta_offset(4)), 3, id="text-over-spark-connect"),
    pytest.param(delta_offset(4, offset_format=3), 3, id="offset-format-3"),
    pytest.param(delta_offset(4, 0), 3, id="version-4-read-in-part"),
    pytest.param(delta_offset(10), 9, id="initial-snapshot-of-version-9-read"),
]
UNKNOWN = [
    pytest.param(progress(delta_offset(9, 1, True)), id="initial-snapshot-read-in-part"),
    pytest.param(progress(None), id="no-batch-yet"),
    pytest.param(v2_progress(None), id="no-batch-yet-with-dsv2"),
    pytest.param(None, id="no-progress-yet"),
]


def merge(*queries: dict[str, Any]) -> dict[str, Any]:
    return {"sources": [source for query in queries for source in query["sources"]]}


def versions_by_id(query: dict[str, Any], *tables: str) -> list[int | None]:
    return [last_read_version(query, f"id of {table}") for table in tables]


@pytest.mark.parametrize(("offset", "version"), KNOWN)
def test_last_read_version_is_the_one_before_the_offset(offset: Any, version: int) -> None:
    assert last_read_version(progress(offset)) == version


@pytest.mark.parametrize("unknown", UNKNOWN)
def test_last_read_version_while_unknown_is_none(unknown: Any) -> None:
    assert last_read_version(unknown) is None


@pytest.mark.parametrize(("offset", "version"), KNOWN)
def test_next_version_is_one_more_than_last_read_version(offset: Any, version: int) -> None:
    assert next_version(progress(offset)) == version + 1


@pytest.mark.parametrize("unknown", UNKNOWN)
def test_next_version_while_unknown_raises(unknown: Any) -> None:
    with pytest.raises(LagDetectorError, match="has not read any version completely yet; run it again to continue"):
        next_version(unknown)


def test_last_read_version_of_change_feed_is_complete_once_nothing_more_is_found() -> None:
    """A stream of the change feed ends on the last file of a version, and not on the next version."""
    end = delta_offset(4, 1)
    assert last_read_version(progress(end, start=delta_offset(4))) == 3
    assert last_read_version(progress(end, start=delta_offset(4, 0))) == 3
    assert last_read_version(progress(end, start=end)) == 4
    assert last_read_version(progress(json.dumps(end), start=json.dumps(end))) == 4
    assert next_version(progress(end, start=end)) == 5
    snapshot = delta_offset(4, 1, True)
    assert last_read_version(progress(snapshot, start=snapshot)) is None


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        pytest.param(KAFKA, "reads no Delta table", id="kafka"),
        pytest.param(progress(), "reads no Delta table", id="no-source"),
        pytest.param({"sources": [SHARED]}, "by Delta Sharing, which is not supported; read the", id="delta-sharing"),
    ],
)
def test_last_read_version_without_delta_table_raises(query: Any, sentence: str) -> None:
    with pytest.raises(LagDetectorError, match=sentence):
        last_read_version(query)


def test_last_read_version_with_another_source_ignores_it() -> None:
    assert last_read_version(merge(KAFKA, progress(delta_offset(4)))) == 3
    assert last_read_version(merge(KAFKA, v2_progress(delta_offset(4)))) == 3


def test_last_read_version_of_self_union_is_the_minimum() -> None:
    assert last_read_version(progress(delta_offset(4), delta_offset(7))) == 3
    assert last_read_version(progress(delta_offset(4), delta_offset(7, 0, True))) is None
    assert last_read_version(progress(delta_offset(4), None), "id of visits") is None


def test_last_read_version_of_two_tables_requires_an_id() -> None:
    both = merge(progress(delta_offset(4)), progress(delta_offset(9, table="orders"), table="orders"))
    assert versions_by_id(both, "visits", "orders") == [3, 8]
    assert next_version(both, "id of orders") == 9
    with pytest.raises(LagDetectorError, match="reads 2 Delta tables"):
        last_read_version(both)
    with pytest.raises(LagDetectorError, match="does not read the table"):
        last_read_version(both, "id of refunds")


def test_last_read_version_of_table_without_offset_is_unknown() -> None:
    both = merge(progress(delta_offset(4)), progress(None, table="orders"))
    assert versions_by_id(both, "visits", "orders") == [3, None]


def test_last_read_version_of_dsv2_source_is_the_one_before_the_offset() -> None:
    query = v2_progress(delta_offset(4))
    assert query["sources"][0]["description"] == f"{V2_SOURCE}d77bc5e"
    assert last_read_version(query) == 3
    assert last_read_version(query, "id of visits") == 3
    with pytest.raises(LagDetectorError, match="does not read the table"):
        last_read_version(query, "id of orders")


def test_last_read_version_of_dsv2_self_union_is_the_minimum() -> None:
    query = v2_progress(delta_offset(7), delta_offset(4))
    assert last_read_version(query) == 3
    assert last_read_version(query, "id of visits") == 3
    assert last_read_version(v2_progress(delta_offset(4), delta_offset(7, 0, True))) is None


def test_last_read_version_of_dsv2_source_without_offset_is_none() -> None:
    """It may be a self-union, or another table: nobody knows yet."""
    assert last_read_version(v2_progress(delta_offset(4), None)) is None
    assert last_read_version(v2_progress(None, None)) is None


def test_last_read_version_of_two_dsv2_tables_requires_an_id() -> None:
    both = v2_progress(delta_offset(4), delta_offset(9, table="orders"))
    assert versions_by_id(both, "visits", "orders") == [3, 8]
    with pytest.raises(LagDetectorError, match="reads 2 Delta tables"):
        last_read_version(both)
    with pytest.raises(LagDetectorError, match="does not read the table"):
        last_read_version(both, "id of refunds")


def test_last_read_version_with_dsv2_source_without_offset_is_unknown() -> None:
    """That source may read the same table, whichever it is."""
    query = v2_progress(delta_offset(4), None)
    assert versions_by_id(query, "visits", "orders") == [None, None]
    with pytest.raises(LagDetectorError, match="has not read any version completely yet"):
        next_version(query, "id of visits")


@pytest.mark.parametrize(
    "newer",
    [
        pytest.param(progress(delta_offset(4, offset_format=4)), id="newer-offset-format"),
        pytest.param(progress({"sourceVersion": 1, "version": 4}), id="offset-with-other-fields"),
        pytest.param(progress("4"), id="offset-that-is-text"),
        pytest.param({"inputs": []}, id="progress-with-other-fields"),
    ],
)
def test_last_read_version_of_unknown_format_raises(newer: Any) -> None:
    with pytest.raises(LagDetectorError, match="unknown format.*; use the Spark and Delta versions that this lag det"):
        last_read_version(newer)
