"""The settings that the tutorial reads from environment variables."""

from pathlib import Path

from tutorial.settings import REPOSITORY, checkpoint_location, consumer_name, table_location

from lag_detector.errors import LagDetectorError
from lag_detector.pushgateway import Pushgateway

import pytest


@pytest.mark.parametrize("name", ["", "fraud", "search_2", "a" * 40])
def test_consumer_name_that_is_valid_is_returned(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISITS_CONSUMER", name)
    assert consumer_name() == name


@pytest.mark.parametrize("name", ["Fraud", "../visits", "2nd", "a b", "fraud\n", "_", "naïve", "a" * 41])
def test_consumer_name_that_is_invalid_raises(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISITS_CONSUMER", name)
    message = "['\"].* is not a valid name of a consumer; .* such as fraud"
    with pytest.raises(LagDetectorError, match=f"^VISITS_CONSUMER: {message}"):
        checkpoint_location()
    with pytest.raises(LagDetectorError, match=f"^{message}"):
        Pushgateway("http://127.0.0.1:9").push("visits_test", 3, consumer=name)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        pytest.param("", str(REPOSITORY / "warehouse"), id="empty"),
        pytest.param("/data/lake/", "/data/lake", id="absolute"),
        pytest.param("lake", "{cwd}/lake", id="relative"),
        pytest.param("~/lake", "{home}/lake", id="home"),
        pytest.param("s3a://bucket/lake", "s3a://bucket/lake", id="uri"),
        pytest.param("file:/data/lake", "file:/data/lake", id="file-uri"),
    ],
)
def test_table_location_for_each_form_of_warehouse_is_absolute(
    setting: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VISITS_WAREHOUSE", setting)
    assert table_location() == expected.format(cwd=tmp_path, home=Path.home()) + "/visits"
