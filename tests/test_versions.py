"""What a Delta offset says about the version read: the off-by-one that the alert hangs on; and consumers' names."""

from typing import Any

from lag_detector.consumers import consumer
from lag_detector.errors import LagDetectorError
from lag_detector.gauges import Pushgateway, publish
from lag_detector.places import checkpoint_location
from lag_detector.versions import last_read_version

import pytest


def progress(*offsets: Any, table: str = "visits", start: Any = None) -> dict[str, Any]:
    description = f"DeltaSource[file:/{table}]"
    return {"sources": [{"description": description, "startOffset": start, "endOffset": offset} for offset in offsets]}


def delta(version: int, index: int, in_snapshot: bool, table: str = "visits", form: int = 1) -> dict[str, Any]:
    return {
        "sourceVersion": form,
        "reservoirId": f"id of {table}",
        "reservoirVersion": version,
        "index": index,
        "isStartingVersion": in_snapshot,
    }


KAFKA = {"sources": [{"description": "KafkaV2[Subscribe[visits]]", "endOffset": {"visits": {"0": 4}}}]}


def together(*queries: dict[str, Any]) -> dict[str, Any]:
    return {"sources": [source for query in queries for source in query["sources"]]}


@pytest.mark.parametrize(
    ("offset", "version"),
    [
        pytest.param(delta(1, -1, False), 0, id="an empty table"),
        pytest.param(delta(4, -1, False), 3, id="three appends"),
        pytest.param(delta(4, 0, False), 3, id="version 4 half read counts as unread"),
        pytest.param(delta(10, -1, False), 9, id="the initial snapshot of version 9, read whole"),
        pytest.param(delta(9, 1, True), None, id="the initial snapshot, half read"),
        pytest.param(None, None, id="no batch yet"),
    ],
)
def test_the_version_read_is_the_one_before_the_offset(offset: Any, version: int | None) -> None:
    assert last_read_version(progress(offset)) == version


def test_the_last_file_of_a_change_completes_a_version_once_nothing_more_is_found() -> None:
    """Where the stream reads the change feed it ends on that file, and not on the next version."""
    end = delta(4, 1, False)
    assert last_read_version(progress(end, start=delta(4, -1, False))) == 3
    assert last_read_version(progress(end, start=delta(4, 0, False))) == 3
    assert last_read_version(progress(end, start=end)) == 4
    snapshot = delta(4, 1, True)
    assert last_read_version(progress(snapshot, start=snapshot)) is None


def test_before_the_first_progress_it_is_unknown() -> None:
    assert last_read_version(None) is None


def test_a_query_with_no_delta_table_has_no_version() -> None:
    for other in (KAFKA, progress()):
        with pytest.raises(LagDetectorError, match="reads no Delta table"):
            last_read_version(other)


def test_beside_another_source_a_delta_table_has_its_version() -> None:
    assert last_read_version(together(KAFKA, progress(delta(4, -1, False)))) == 3


def test_of_a_table_that_is_read_twice_the_version_counts_that_both_have_read() -> None:
    assert last_read_version(progress(delta(4, -1, False), delta(7, -1, False))) == 3
    assert last_read_version(progress(delta(4, -1, False), delta(7, 0, True))) is None
    assert last_read_version(progress(delta(4, -1, False), None), "id of visits") is None


def test_each_table_of_a_query_has_a_version() -> None:
    both = together(progress(delta(4, -1, False)), progress(delta(9, -1, False, "orders"), table="orders"))
    assert [last_read_version(both, f"id of {table}") for table in ("visits", "orders")] == [3, 8]
    with pytest.raises(LagDetectorError, match="reads 2 Delta tables"):
        last_read_version(both)
    with pytest.raises(LagDetectorError, match="does not read the table"):
        last_read_version(both, "id of refunds")


def test_a_table_without_an_offset_yet_is_unknown_by_any_id() -> None:
    both = together(progress(delta(4, -1, False)), progress(None, table="orders"))
    assert [last_read_version(both, f"id of {table}") for table in ("visits", "orders")] == [3, None]


@pytest.mark.parametrize(
    "newer",
    [
        pytest.param(progress(delta(4, -1, False, form=4)), id="an offset of a newer form"),
        pytest.param(progress({"sourceVersion": 1, "version": 4}), id="an offset with other fields"),
        pytest.param(progress("4"), id="an offset that is a text"),
        pytest.param({"inputs": []}, id="a progress with other fields"),
    ],
)
def test_what_newer_versions_say_is_refused(newer: Any) -> None:
    with pytest.raises(LagDetectorError, match="not known here.*; go back to the pinned versions"):
        last_read_version(newer)


@pytest.mark.parametrize("name", ["", "fraud", "search_2", "a" * 40])
def test_names_of_consumers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISITS_CONSUMER", name)
    assert consumer() == name


@pytest.mark.parametrize("name", ["Fraud", "../visits", "2nd", "a b", "fraud\n", "_", "naïve", "a" * 41])
def test_what_is_no_name_of_a_consumer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISITS_CONSUMER", name)
    with pytest.raises(LagDetectorError, match="VISITS_CONSUMER is .*; take one like fraud"):
        checkpoint_location()
    with pytest.raises(LagDetectorError, match="the consumer is .*; take one like fraud"):
        publish(Pushgateway("http://127.0.0.1:9"), "visits_test", 3, consumer=name)
