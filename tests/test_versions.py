"""What a Delta offset says about the version read: the off-by-one that the alert hangs on."""

from typing import Any

from lag_detector.errors import LagDetectorError
from lag_detector.versions import last_read_version

import pytest


def progress(*offsets: Any) -> dict[str, Any]:
    return {"sources": [{"description": "a source", "endOffset": offset} for offset in offsets]}


def delta(version: int, index: int, in_snapshot: bool) -> dict[str, Any]:
    return {"sourceVersion": 1, "reservoirVersion": version, "index": index, "isStartingVersion": in_snapshot}


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


def test_a_source_that_is_not_delta_has_no_version() -> None:
    with pytest.raises(LagDetectorError, match="no Delta table"):
        last_read_version(progress({"logOffset": 4}))


@pytest.mark.parametrize("offsets", [(), (delta(4, -1, False), delta(7, -1, False))])
def test_only_one_source_has_one_version(offsets: Any) -> None:
    with pytest.raises(LagDetectorError, match=f"{len(offsets)} sources"):
        last_read_version(progress(*offsets))
