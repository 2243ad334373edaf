"""The steps of the tutorial in order: what each one shows in the terminal and on the dashboard."""

import time
from collections.abc import Iterator
from itertools import groupby

from demo.stack import ALERT, COMPRESSED, Stack, local_stack, wait_for
from tests.helpers.disk_truth import samples
from tests.helpers.grafana_files import Rule, queries
from tests.helpers.script_outputs import CREATED, VISITS
from tests.helpers.workspace import SessionWorkspace, Workspace, wait_until_equal

import pytest
from pyspark.sql import SparkSession

WRITER, READER, FRAUD = "visits_writer_version", "visits_reader_version", "visits_reader_version_fraud"
RETIRE_FRAUD = "examples/retire_consumer.py fraud"
NORMAL, FIRING = 0.0, 2.0


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack without data from other tests."""
    with local_stack(tmp_path_factory.mktemp("stack"), COMPRESSED) as running:
        yield running


@pytest.fixture(scope="module")
def tutorial(stack: Stack, spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> SessionWorkspace:
    """The workspace of all steps. Here they run in one session; tests/pages/test_pages.py runs them as a user does."""
    return SessionWorkspace(Workspace(tmp_path_factory.mktemp("tutorial"), stack), spark)


def wait_for_dashboard(
    workspace: Workspace, writers: list[float], readers: list[float], lag: list[float], states: list[float]
) -> None:
    """Wait until every query of the dashboard returns what its panel promises."""
    behind = [versions > 0 for versions in lag]
    expected: dict[str, list[float] | list[bool]] = {
        "Lag now: A": lag,
        "Versions and lag: writer": writers,
        "Versions and lag: reader": readers,
        "Versions and lag: lag": lag,
        "Alert in Prometheus: A": states,
        "Prometheus' alert": [1.0 for _ in {state for state in states if state}],  # one band, however many consumers
        "Since the last push: A": [True for _ in (*writers, *readers)],
        "Lag in time now: A": behind,
        "Lag in time: A": behind,
    }

    def shown() -> dict[str, list[float] | list[bool]]:
        values = {place: sorted(workspace.stack.query(query)) for place, query in queries().items()}
        ages = values["Since the last push: A"]
        late = {place: [age > 0 for age in values[place]] for place in values if place.startswith("Lag in time")}
        return {**values, **late, "Since the last push: A": [0 <= age < 600 for age in ages]}

    wait_until_equal(shown, expected, limit=60)


def states_of_grafana_rule(tutorial: SessionWorkspace, end: float) -> list[str]:
    """Evaluate the rule in Grafana's file on what Prometheus has kept from the first read until `end`, in Unix time."""
    rule = Rule.from_file(COMPRESSED)
    return rule.states(tutorial.stack, first_sample(tutorial.stack, READER) + rule.interval, end)


def first_sample(stack: Stack, gauge: str) -> float:
    """Return the Unix time of a gauge's first sample."""
    (first,) = stack.query(f"min_over_time(timestamp({gauge})[30m:1s])")
    return first


# Each step continues where the one before has ended. The second and the third round do the same.
@pytest.mark.parametrize(
    ("script", "table", "pushed", "writer", "reader"),
    [
        ("create_table.py", CREATED, "", None, None),
        ("visits_creator_job.py", "", "visits_writer_version 3", 3, None),
        ("visits_reader.py", VISITS, "", 3, None),
        ("visits_consumer.py", VISITS, "visits_reader_version 3", 3, 3),
        ("visits_consumer.py", "", "visits_reader_version 3", 3, 3),
        ("visits_creator_job.py", "", "visits_writer_version 6", 6, 3),
        ("visits_consumer.py", VISITS, "visits_reader_version 6", 6, 6),
        ("visits_creator_job.py", "", "visits_writer_version 9", 9, 6),
        ("visits_consumer.py", VISITS, "visits_reader_version 9", 9, 9),
    ],
)
def test_step_prints_its_table_and_its_push_and_moves_dashboard_and_alerts(
    script: str, table: str, pushed: str, writer: int | None, reader: int | None, tutorial: SessionWorkspace
) -> None:
    line = f"{pushed} pushed to {tutorial.stack.pushgateway}\n" if pushed else ""
    assert tutorial.succeed(script) == table + line
    lag = None if writer is None or reader is None else writer - reader
    state = None if lag is None else FIRING if lag else NORMAL
    wait_for_dashboard(tutorial, *([] if each is None else [each] for each in (writer, reader, lag, state)))
    if lag is not None:  # Grafana's rule looks at other moments
        expected = "Alerting" if lag else "Normal"
        wait_until_equal(lambda: states_of_grafana_rule(tutorial, time.time())[-1], expected)


def test_grafana_rule_over_three_rounds_agrees_with_prometheus(tutorial: SessionWorkspace) -> None:
    """Evaluate the rule in Grafana's file on what Prometheus has kept of the three rounds."""
    stack, rule = tutorial.stack, Rule.from_file(COMPRESSED)
    now = time.time() + rule.interval
    wait_for("one more evaluation", lambda: time.time() > now or None, 60)
    first_write, first_read = first_sample(stack, WRITER), first_sample(stack, READER)
    # Until the first read there is no data, and the rule makes Grafana alert on that, however fast the steps were.
    begin = min(first_write, first_read - rule.pending_period - 2 * rule.interval)
    one_round = ["Normal", "Pending", "Alerting"]
    assert rule.states(stack, begin, first_read - rule.interval) == one_round
    states = states_of_grafana_rule(tutorial, now)
    assert states == [*one_round, *one_round, "Normal"]

    def prometheus_state(at: float) -> str:
        alerts = f'ALERTS{{alertname="{ALERT}",alertstate="%s"}}'
        firing, pending = (stack.query(alerts % state, at) for state in ("firing", "pending"))
        return "Alerting" if firing else "Pending" if pending else "Normal"

    seconds = range(int(first_read), int(now))
    assert states == [state for state, _ in groupby(map(prometheus_state, seconds))]


def test_additional_consumer_has_its_own_lag_until_it_is_retired(tutorial: SessionWorkspace) -> None:
    printed = tutorial.succeed("visits_consumer.py", VISITS_CONSUMER="fraud")
    assert printed.count("|visit ") == 27
    assert printed.endswith(tutorial.pushed(FRAUD, 9))
    tutorial.succeed("visits_creator_job.py")
    tutorial.succeed("visits_consumer.py")
    wait_for_dashboard(tutorial, writers=[12], readers=[9, 12], lag=[0, 3], states=[NORMAL, FIRING])
    assert tutorial.succeed(RETIRE_FRAUD) == (
        f"{FRAUD} deleted from {tutorial.stack.pushgateway}; "
        f"its checkpoint stays in {tutorial.warehouse}/checkpoints/visits_consumer_fraud\n"
    )
    assert tutorial.gauges() == {WRITER: 12, READER: 12}
    again = tutorial.fail(RETIRE_FRAUD)
    assert again == "Error: the Pushgateway has no consumer 'fraud'; it has these: none."
    assert tutorial.succeed("visits_consumer.py", VISITS_CONSUMER="fraud").count("|visit ") == 9


def test_create_table_when_run_again_starts_over(tutorial: SessionWorkspace) -> None:
    assert tutorial.succeed("create_table.py") == CREATED
    assert tutorial.gauges() == {}
    # A consumer of the empty table is at version 0.
    printed = tutorial.succeed("visits_consumer.py")
    assert printed.endswith(tutorial.pushed(READER, 0))
    assert "visit 1" not in printed
    assert tutorial.succeed("visits_creator_job.py") == tutorial.pushed(WRITER, 3)
    assert tutorial.succeed("visits_consumer.py") == VISITS + tutorial.pushed(READER, 3)
    committed = pytest.approx(tutorial.disk.commit(3).stat().st_mtime, abs=0.002)
    pushed = {
        (series.pop("__name__"), *series.values()): value
        for series, value in samples(tutorial.stack.pushgateway)
        if series["__name__"].startswith("visits_")
    }
    assert pushed == {
        (READER, "", READER): 3,
        (f"{READER}_timestamp_seconds", "", READER): committed,
        (WRITER, "", WRITER): 3,
        (f"{WRITER}_timestamp_seconds", "", WRITER): committed,
    }
