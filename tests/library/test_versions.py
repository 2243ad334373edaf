"""The version that a stream has read, computed from its offsets. An error of one here is an error in every alert."""

import json
from itertools import count
from typing import Any

from lag_detector.errors import LagDetectorError
from lag_detector.versions import last_read_version, next_version

import pytest

Source = dict[str, Any]
hashes = count(0xD77BC5E)


def delta(end: Any, table: str = "visits", start: Any = None) -> Source:
    return {"description": f"DeltaSource[file:/{table}]", "startOffset": start, "endOffset": end}


def v2(end: Any) -> Source:
    """A source of DSv2, which has a description of its own and no path."""
    description = f"io.delta.spark.internal.v2.read.DeltaV2MicroBatchStream@{next(hashes):x}"
    return {"description": description, "startOffset": None, "endOffset": end}


def at(version: int, index: int = -1, in_snapshot: bool = False, table: str = "visits", form: int = 1) -> Source:
    return {
        "sourceVersion": form,
        "reservoirId": f"id of {table}",
        "reservoirVersion": version,
        "index": index,
        "isStartingVersion": in_snapshot,
    }


KAFKA = {"description": "KafkaV2[Subscribe[visits]]", "endOffset": {"visits": {"0": 4}}}
SHARED = {"description": "DeltaSharingSource", "startOffset": None, "endOffset": {"tableId": "x", "tableVersion": 4}}
# A stream of the change feed ends on the last file of a version, and not on the next version.
LAST_FILE, IN_SNAPSHOT = at(4, 1), at(9, 1, in_snapshot=True)

KNOWN: dict[str, tuple[int, list[Source]]] = {
    "empty-table": (0, [delta(at(1))]),
    "three-appends": (3, [delta(at(4))]),
    "nothing-new": (3, [delta(at(4), start=at(4))]),
    "text-over-spark-connect": (3, [delta(json.dumps(at(4)))]),
    "offset-format-3": (3, [delta(at(4, form=3))]),
    "version-4-read-in-part": (3, [delta(at(4, 0))]),
    "initial-snapshot-of-version-9-read": (9, [delta(at(10))]),
    "change-feed": (3, [delta(LAST_FILE, start=at(4))]),
    "change-feed-within-version-4": (3, [delta(LAST_FILE, start=at(4, 0))]),
    "change-feed-with-nothing-more": (4, [delta(LAST_FILE, start=LAST_FILE)]),
    "change-feed-with-nothing-more-as-text": (4, [delta(json.dumps(LAST_FILE), start=json.dumps(LAST_FILE))]),
    "self-union": (3, [delta(at(4)), delta(at(7))]),
    "kafka-too": (3, [KAFKA, delta(at(4))]),
    "dsv2": (3, [v2(at(4))]),
    "dsv2-self-union": (3, [v2(at(7)), v2(at(4))]),
    "dsv2-and-kafka": (3, [KAFKA, v2(at(4))]),
}
UNKNOWN = {
    "initial-snapshot-read-in-part": [delta(IN_SNAPSHOT)],
    "initial-snapshot-of-change-feed": [delta(IN_SNAPSHOT, start=IN_SNAPSHOT)],
    "no-batch-yet": [delta(None)],
    "self-union-with-one-in-its-snapshot": [delta(at(4)), delta(at(7, 0, in_snapshot=True))],
    "self-union-with-one-without-offset": [delta(at(4)), delta(None)],
    "dsv2-no-batch-yet": [v2(None)],
    "dsv2-no-batch-of-two": [v2(None), v2(None)],
    "dsv2-self-union-with-one-in-its-snapshot": [v2(at(4)), v2(at(7, 0, in_snapshot=True))],
    "dsv2-which-may-read-the-same-table": [v2(at(4)), v2(None)],
}
INVALID = {
    "kafka": ([KAFKA], "reads no Delta table"),
    "no-source": ([], "reads no Delta table"),
    "delta-sharing": ([SHARED], "by Delta Sharing, which is not supported; read the"),
    "newer-offset-format": (
        [delta(at(4, form=4))],
        "unknown format.*; use the Spark and Delta versions that this lag det",
    ),
    "offset-with-other-fields": ([delta({"sourceVersion": 1, "version": 4})], "unknown format.*; use the Spark"),
    "offset-that-is-text": ([delta("4")], "unknown format.*; use the Spark"),
}


@pytest.mark.parametrize("table", [None, "id of visits"])
@pytest.mark.parametrize(("version", "sources"), KNOWN.values(), ids=KNOWN)
def test_last_read_version_is_the_one_before_the_next(version: int, sources: list[Source], table: str | None) -> None:
    assert last_read_version({"sources": sources}, table) == version
    assert next_version({"sources": sources}, table) == version + 1


@pytest.mark.parametrize("table", [None, "id of visits"])
@pytest.mark.parametrize("progress", [None, *({"sources": sources} for sources in UNKNOWN.values())])
def test_last_read_version_while_unknown_is_none(progress: Any, table: str | None) -> None:
    assert last_read_version(progress, table) is None
    with pytest.raises(LagDetectorError, match="has not read any version completely yet; run it again to continue"):
        next_version(progress, table)


@pytest.mark.parametrize(("sources", "sentence"), INVALID.values(), ids=INVALID)
def test_last_read_version_of_another_source_or_format_raises(sources: list[Source], sentence: str) -> None:
    with pytest.raises(LagDetectorError, match=sentence):
        last_read_version({"sources": sources})


def test_last_read_version_of_progress_with_other_fields_raises() -> None:
    with pytest.raises(LagDetectorError, match="unknown format"):
        last_read_version({"inputs": []})


@pytest.mark.parametrize(
    "sources", [[delta(at(4)), delta(at(9, table="orders"), "orders")], [v2(at(4)), v2(at(9, table="orders"))]]
)
def test_last_read_version_of_two_tables_requires_an_id(sources: list[Source]) -> None:
    both = {"sources": sources}
    assert [last_read_version(both, f"id of {table}") for table in ("visits", "orders")] == [3, 8]
    assert next_version(both, "id of orders") == 9
    with pytest.raises(LagDetectorError, match="reads 2 Delta tables"):
        last_read_version(both)
    with pytest.raises(LagDetectorError, match="does not read the table"):
        last_read_version(both, "id of refunds")
    with pytest.raises(LagDetectorError, match="does not read the table"):
        last_read_version({"sources": sources[:1]}, "id of orders")


@pytest.mark.parametrize(
    ("sources", "versions"),
    [
        pytest.param([delta(at(4)), delta(None, "orders")], [3, None], id="path"),
        pytest.param([v2(at(4)), v2(None)], [None, None], id="dsv2"),
    ],
)
def test_last_read_version_with_source_without_offset(sources: list[Source], versions: list[int | None]) -> None:
    """Its path says which table it reads. Without a path it may read either of them."""
    assert [last_read_version({"sources": sources}, f"id of {table}") for table in ("visits", "orders")] == versions
