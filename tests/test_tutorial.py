"""The steps of the tutorial, one after the other, with what each must show in the terminal and on the dashboard."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import groupby

from demo.stack import ALERT, COMPRESSED, LAG, ROOT, Stack, local_stack, wait_for
from tests import truth
from tests.conftest import Reader, becomes
from tests.grafana import Rule, queries

import pytest

CREATED = """\
+----------------------------+------------------------+
|name                        |tableFeatures           |
+----------------------------+------------------------+
|spark_catalog.default.visits|[appendOnly, invariants]|
+----------------------------+------------------------+

+----------------------+-----+
|key                   |value|
+----------------------+-----+
|delta.minReaderVersion|1    |
|delta.minWriterVersion|2    |
+----------------------+-----+

"""

VISITS = """\
+---------+----------------------+-------+------------+
|visit_id |event_time            |user_id|page        |
+---------+----------------------+-------+------------+
|visit 1-0|2024-07-01 12:00:00.84|user 1 |index.html  |
|visit 1-1|2024-07-01 12:00:00.84|user 1 |index.html  |
|visit 1-2|2024-07-01 12:00:00.84|user 1 |index.html  |
|visit 2-0|2024-07-01 14:00:00.84|user 2 |contact.html|
|visit 2-1|2024-07-01 14:00:00.84|user 2 |contact.html|
|visit 2-2|2024-07-01 14:00:00.84|user 2 |contact.html|
|visit 3-0|2024-07-01 15:00:00.84|user 3 |about.html  |
|visit 3-1|2024-07-01 15:00:00.84|user 3 |about.html  |
|visit 3-2|2024-07-01 15:00:00.84|user 3 |about.html  |
+---------+----------------------+-------+------------+

"""


def pushed(reader: Reader, gauge: str, version: int) -> str:
    return f"{gauge} {version} pushed to {reader.stack.pushgateway}\n"


def gauges_on_the_gateway(reader: Reader) -> dict[tuple[str, ...], float]:
    return {
        (series.pop("__name__"), *series.values()): value
        for series, value in truth.samples(reader.stack.pushgateway)
        if series["__name__"].startswith("visits_")
    }


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One that remembers nothing of other tests."""
    with local_stack(tmp_path_factory.mktemp("stack"), COMPRESSED) as running:
        yield running


def the_dashboard_shows(
    reader: Reader, writers: list[float], readers: list[float], lag: list[float], states: list[float]
) -> None:
    """Wait until every query of the dashboard gives what its panel promises."""
    expected: dict[str, list[float] | list[bool]] = {
        "Lag now: A": lag,
        "Versions and lag: writer": writers,
        "Versions and lag: reader": readers,
        "Versions and lag: lag": lag,
        "Alert in Prometheus: A": states,
        "Prometheus' alert": [1.0 for state in states if state],
        "Since the last push: A": [True for _ in (*writers, *readers)],
        "Lag in time now: A": [versions > 0 for versions in lag],
        "Lag in time: A": [versions > 0 for versions in lag],
    }

    def shown() -> dict[str, list[float] | list[bool]]:
        values = {place: sorted(reader.stack.query(query)) for place, query in queries().items()}
        ages = values["Since the last push: A"]
        late = {place: [age > 0 for age in values[place]] for place in values if place.startswith("Lag in time")}
        return {**values, **late, "Since the last push: A": [0 <= age < 600 for age in ages]}

    becomes(shown, expected)


def test_the_table_is_created(reader: Reader) -> None:
    assert reader.succeed("create_table.py") == CREATED
    the_dashboard_shows(reader, writers=[], readers=[], lag=[], states=[])


def test_the_writer_reaches_version_3(reader: Reader) -> None:
    assert reader.succeed("visits_creator_job.py") == pushed(reader, "visits_writer_version", 3)
    reader.prometheus_shows([3], [])
    the_dashboard_shows(reader, writers=[3], readers=[], lag=[], states=[])


def test_the_reader_prints_the_table(reader: Reader) -> None:
    assert reader.succeed("visits_reader.py") == VISITS


def test_the_consumer_prints_what_is_new_and_reaches_version_3(reader: Reader) -> None:
    assert reader.succeed("visits_consumer.py") == VISITS + pushed(reader, "visits_reader_version", 3)
    reader.prometheus_shows([3], [3])
    the_dashboard_shows(reader, writers=[3], readers=[3], lag=[0], states=[0])


def test_with_nothing_new_the_consumer_prints_no_rows_and_pushes_again(reader: Reader) -> None:
    assert reader.succeed("visits_consumer.py") == pushed(reader, "visits_reader_version", 3)


def test_the_lag_is_3_in_the_next_round_too_and_the_alert_fires_and_ends(reader: Reader) -> None:
    reader.alert_is("inactive")
    assert reader.succeed("visits_creator_job.py") == pushed(reader, "visits_writer_version", 6)
    reader.prometheus_shows([6], [3])
    reader.alert_is("pending")
    reader.alert_is("firing")
    the_dashboard_shows(reader, writers=[6], readers=[3], lag=[3], states=[2])
    assert reader.succeed("visits_consumer.py") == VISITS + pushed(reader, "visits_reader_version", 6)
    reader.prometheus_shows([6], [6])
    reader.alert_is("inactive")
    assert reader.stack.query(LAG) == [0]


def test_and_in_the_third(reader: Reader) -> None:
    assert reader.succeed("visits_creator_job.py") == pushed(reader, "visits_writer_version", 9)
    reader.prometheus_shows([9], [6])
    reader.alert_is("firing")
    assert reader.succeed("visits_consumer.py") == VISITS + pushed(reader, "visits_reader_version", 9)
    reader.prometheus_shows([9], [9])
    reader.alert_is("inactive")


def test_grafanas_rule_goes_the_same_way(reader: Reader) -> None:
    """From its own file, evaluated by a harness on what Prometheus has kept of the three rounds."""
    rule = Rule.from_file(COMPRESSED)
    now = time.time() + rule.interval
    wait_for("one more evaluation", lambda: time.time() > now or None, 60)
    (began,) = reader.stack.query("min_over_time(timestamp(visits_writer_version)[30m:1s])")
    (known,) = reader.stack.query("min_over_time(timestamp(visits_reader_version)[30m:1s])")
    # Without a reader's version there is no data, which Grafana is told to take for an alert.
    assert rule.states(reader.stack, began, known - rule.interval) == ["Normal", "Pending", "Alerting"]
    round_of_it = ["Normal", "Pending", "Alerting"]
    states = rule.states(reader.stack, known + rule.interval, now)
    assert states == [*round_of_it, *round_of_it, "Normal"]

    def of_prometheus(at: float) -> str:
        alerts = f'ALERTS{{alertname="{ALERT}",alertstate="%s"}}'
        firing, pending = (reader.stack.query(alerts % state, at) for state in ("firing", "pending"))
        return "Alerting" if firing else "Pending" if pending else "Normal"

    seconds = range(int(known), int(now))
    assert states == [state for state, _ in groupby(map(of_prometheus, seconds))]


def test_a_further_consumer_has_a_lag_of_its_own(reader: Reader) -> None:
    read = reader.succeed("visits_consumer.py", VISITS_CONSUMER="fraud")
    assert read.count("|visit ") == 27
    assert read.endswith(pushed(reader, "visits_reader_version_fraud", 9))
    reader.succeed("visits_creator_job.py")
    reader.succeed("visits_consumer.py")
    reader.alert_is("firing")
    the_dashboard_shows(reader, writers=[12], readers=[9, 12], lag=[0, 3], states=[0, 2])


def test_a_retired_consumer_leaves_no_ghost(reader: Reader) -> None:
    assert retire(reader, "fraud") == (
        f"visits_reader_version_fraud removed from {reader.stack.pushgateway}; "
        f"its checkpoint stays in {reader.warehouse}/checkpoints/visits_consumer_fraud\n"
    )
    reader.prometheus_shows([12], [12])  # the query of the lag remembers it for a minute
    assert retire(reader, "fraud") == (
        "Error: there is no consumer with the name 'fraud' on the Pushgateway; "
        "run python -m lag_detector.retire with the name of one that is there (there are none).\n"
    )
    assert reader.succeed("visits_consumer.py", VISITS_CONSUMER="fraud").count("|visit ") == 9


def retire(reader: Reader, name: str) -> str:
    """Run the command as the README says; gives all that it printed."""
    return subprocess.run(
        [sys.executable, "-m", "lag_detector.retire", name],
        cwd=ROOT,
        env={**os.environ, "PUSHGATEWAY_URL": reader.stack.pushgateway, "VISITS_WAREHOUSE": str(reader.warehouse)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    ).stdout


def test_create_table_starts_the_tutorial_over(reader: Reader) -> None:
    assert reader.succeed("create_table.py") == CREATED
    assert gauges_on_the_gateway(reader) == {}
    # A consumer of the empty table is at version 0.
    printed = reader.succeed("visits_consumer.py")
    assert printed.splitlines()[-1] + "\n" == pushed(reader, "visits_reader_version", 0)
    assert "visit 1" not in printed
    assert reader.succeed("visits_creator_job.py") == pushed(reader, "visits_writer_version", 3)
    assert reader.succeed("visits_consumer.py") == VISITS + pushed(reader, "visits_reader_version", 3)
    committed = truth.Disk(reader.warehouse).commit(3).stat().st_mtime
    assert gauges_on_the_gateway(reader) == {
        ("visits_reader_version", "", "visits_reader_version"): 3,
        ("visits_reader_version_timestamp_seconds", "", "visits_reader_version"): pytest.approx(committed, abs=0.002),
        ("visits_writer_version", "", "visits_writer_version"): 3,
        ("visits_writer_version_timestamp_seconds", "", "visits_writer_version"): pytest.approx(committed, abs=0.002),
    }


def test_nothing_was_left_in_the_working_directory(reader: Reader) -> None:
    assert list(reader.desk.iterdir()) == []
