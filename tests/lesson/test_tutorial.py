"""The steps of the tutorial in order: what each one shows in the terminal and on the dashboard."""

import time
from collections.abc import Iterator
from itertools import groupby

from demo.stack import ALERT, COMPRESSED, LAG, Stack, local_stack, wait_for
from tests.helpers import disk_truth as truth
from tests.helpers.grafana_files import Rule, queries
from tests.helpers.script_outputs import CREATED, VISITS, pushed
from tests.helpers.workspace import SessionWorkspace, Workspace, wait_until_equal

import pytest
from pyspark.sql import SparkSession

WRITER, READER, FRAUD = "visits_writer_version", "visits_reader_version", "visits_reader_version_fraud"
RETIRE_FRAUD = "examples/retire_consumer.py fraud"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack without data from other tests."""
    with local_stack(tmp_path_factory.mktemp("stack"), COMPRESSED) as running:
        yield running


@pytest.fixture(scope="module")
def tutorial(stack: Stack, spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> SessionWorkspace:
    """The workspace of all steps. Here they run in one session; tests/pages/test_pages.py runs them as a user does."""
    return SessionWorkspace(Workspace(tmp_path_factory.mktemp("tutorial"), stack), spark)


def gauges_on_pushgateway(workspace: Workspace) -> dict[tuple[str, ...], float]:
    """Return the value of each gauge of the tutorial, by its name and its labels."""
    return {
        (series.pop("__name__"), *series.values()): value
        for series, value in truth.samples(workspace.stack.pushgateway)
        if series["__name__"].startswith("visits_")
    }


def wait_for_dashboard(
    workspace: Workspace, writers: list[float], readers: list[float], lag: list[float], states: list[float]
) -> None:
    """Wait until every query of the dashboard returns what its panel promises."""
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
        values = {place: sorted(workspace.stack.query(query)) for place, query in queries().items()}
        ages = values["Since the last push: A"]
        late = {place: [age > 0 for age in values[place]] for place in values if place.startswith("Lag in time")}
        return {**values, **late, "Since the last push: A": [0 <= age < 600 for age in ages]}

    wait_until_equal(shown, expected)


def states_of_grafana_rule(tutorial: SessionWorkspace, end: float) -> list[str]:
    """Evaluate the rule in Grafana's file on what Prometheus has kept from the first read until `end`, in Unix time."""
    rule = Rule.from_file(COMPRESSED)
    return rule.states(tutorial.stack, first_sample(tutorial.stack, READER) + rule.interval, end)


def first_sample(stack: Stack, gauge: str) -> float:
    """Return the Unix time of a gauge's first sample."""
    (first,) = stack.query(f"min_over_time(timestamp({gauge})[30m:1s])")
    return first


def wait_for_both_alerts(tutorial: SessionWorkspace) -> None:
    """Wait until both rules fire. They look at different moments, so the one may fire 4 seconds after the other."""
    tutorial.wait_for_alert("firing")
    wait_until_equal(lambda: states_of_grafana_rule(tutorial, time.time())[-1], "Alerting")


def test_create_table_in_new_warehouse_prints_table(tutorial: SessionWorkspace) -> None:
    assert tutorial.succeed("create_table.py") == CREATED
    wait_for_dashboard(tutorial, writers=[], readers=[], lag=[], states=[])


def test_creator_job_on_empty_table_reaches_version_3(tutorial: SessionWorkspace) -> None:
    assert tutorial.succeed("visits_creator_job.py") == pushed(tutorial, WRITER, 3)
    tutorial.wait_for_versions([3], [])
    wait_for_dashboard(tutorial, writers=[3], readers=[], lag=[], states=[])


def test_reader_at_version_3_prints_table(tutorial: SessionWorkspace) -> None:
    assert tutorial.succeed("visits_reader.py") == VISITS


def test_consumer_on_first_run_prints_rows_and_reaches_version_3(tutorial: SessionWorkspace) -> None:
    assert tutorial.succeed("visits_consumer.py") == VISITS + pushed(tutorial, READER, 3)
    tutorial.wait_for_versions([3], [3])
    wait_for_dashboard(tutorial, writers=[3], readers=[3], lag=[0], states=[0])


def test_consumer_with_nothing_new_prints_no_rows_and_pushes_again(tutorial: SessionWorkspace) -> None:
    assert tutorial.succeed("visits_consumer.py") == pushed(tutorial, READER, 3)


def test_lag_in_second_round_is_3_and_alert_fires_and_resolves(tutorial: SessionWorkspace) -> None:
    tutorial.wait_for_alert("inactive")
    assert tutorial.succeed("visits_creator_job.py") == pushed(tutorial, WRITER, 6)
    tutorial.wait_for_versions([6], [3])
    tutorial.wait_for_alert("pending")
    wait_for_both_alerts(tutorial)
    wait_for_dashboard(tutorial, writers=[6], readers=[3], lag=[3], states=[2])
    assert tutorial.succeed("visits_consumer.py") == VISITS + pushed(tutorial, READER, 6)
    tutorial.wait_for_versions([6], [6])
    tutorial.wait_for_alert("inactive")
    # Otherwise the next round could begin before Grafana's rule has looked, and be one with this round.
    wait_until_equal(lambda: states_of_grafana_rule(tutorial, time.time())[-1], "Normal")
    assert tutorial.stack.query(LAG) == [0]


def test_alert_in_third_round_fires_and_resolves(tutorial: SessionWorkspace) -> None:
    assert tutorial.succeed("visits_creator_job.py") == pushed(tutorial, WRITER, 9)
    tutorial.wait_for_versions([9], [6])
    wait_for_both_alerts(tutorial)
    assert tutorial.succeed("visits_consumer.py") == VISITS + pushed(tutorial, READER, 9)
    tutorial.wait_for_versions([9], [9])
    tutorial.wait_for_alert("inactive")


def test_grafana_rule_over_three_rounds_agrees_with_prometheus(tutorial: SessionWorkspace) -> None:
    """Evaluate the rule in Grafana's file on what Prometheus has kept of the three rounds."""
    stack, rule = tutorial.stack, Rule.from_file(COMPRESSED)
    now = time.time() + rule.interval
    wait_for("one more evaluation", lambda: time.time() > now or None, 60)
    first_write, first_read = first_sample(stack, WRITER), first_sample(stack, READER)
    # Until the first read there is no data, and the rule makes Grafana alert on that, however fast the steps were.
    begin = min(first_write, first_read - rule.pending_period - 2 * rule.interval)
    assert rule.states(stack, begin, first_read - rule.interval) == ["Normal", "Pending", "Alerting"]
    one_round = ["Normal", "Pending", "Alerting"]
    states = states_of_grafana_rule(tutorial, now)
    assert states == [*one_round, *one_round, "Normal"]

    def prometheus_state(at: float) -> str:
        alerts = f'ALERTS{{alertname="{ALERT}",alertstate="%s"}}'
        firing, pending = (stack.query(alerts % state, at) for state in ("firing", "pending"))
        return "Alerting" if firing else "Pending" if pending else "Normal"

    seconds = range(int(first_read), int(now))
    assert states == [state for state, _ in groupby(map(prometheus_state, seconds))]


def test_additional_consumer_behind_the_first_has_its_own_lag(tutorial: SessionWorkspace) -> None:
    printed = tutorial.succeed("visits_consumer.py", VISITS_CONSUMER="fraud")
    assert printed.count("|visit ") == 27
    assert printed.endswith(pushed(tutorial, FRAUD, 9))
    tutorial.succeed("visits_creator_job.py")
    tutorial.succeed("visits_consumer.py")
    tutorial.wait_for_alert("firing")
    wait_for_dashboard(tutorial, writers=[12], readers=[9, 12], lag=[0, 3], states=[0, 2])


def test_additional_consumer_when_retired_loses_its_gauge_but_not_its_checkpoint(tutorial: SessionWorkspace) -> None:
    assert tutorial.succeed(RETIRE_FRAUD) == (
        f"{FRAUD} deleted from {tutorial.stack.pushgateway}; "
        f"its checkpoint stays in {tutorial.warehouse}/checkpoints/visits_consumer_fraud\n"
    )
    tutorial.wait_for_versions([12], [12])  # the query of the lag still has the other one for a minute
    again = tutorial.run(RETIRE_FRAUD)
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == "Error: the Pushgateway has no consumer 'fraud'; it has these: none.\n"
    assert tutorial.succeed("visits_consumer.py", VISITS_CONSUMER="fraud").count("|visit ") == 9


def test_create_table_when_run_again_starts_over(tutorial: SessionWorkspace) -> None:
    assert tutorial.succeed("create_table.py") == CREATED
    assert gauges_on_pushgateway(tutorial) == {}
    # A consumer of the empty table is at version 0.
    printed = tutorial.succeed("visits_consumer.py")
    assert printed.splitlines()[-1] + "\n" == pushed(tutorial, READER, 0)
    assert "visit 1" not in printed
    assert tutorial.succeed("visits_creator_job.py") == pushed(tutorial, WRITER, 3)
    assert tutorial.succeed("visits_consumer.py") == VISITS + pushed(tutorial, READER, 3)
    committed = truth.Disk(tutorial.warehouse).commit(3).stat().st_mtime
    assert gauges_on_pushgateway(tutorial) == {
        ("visits_reader_version", "", "visits_reader_version"): 3,
        ("visits_reader_version_timestamp_seconds", "", "visits_reader_version"): pytest.approx(committed, abs=0.002),
        ("visits_writer_version", "", "visits_writer_version"): 3,
        ("visits_writer_version_timestamp_seconds", "", "visits_writer_version"): pytest.approx(committed, abs=0.002),
    }
