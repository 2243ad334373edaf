"""Prometheus finds a watcher, its rules fire, and the dashboard Delta consumers shows what it found."""

import re
from collections.abc import Iterator
from math import inf
from urllib.parse import quote, urlencode

from demo.stack import COMPRESSED, ROOT, Stack, local_stack
from tests.helpers.grafana_files import CONSUMERS, queries
from tests.helpers.watcher_answers import ORDERS, VISITS, watcher
from tests.helpers.workspace import wait_until_equal

import pytest
import yaml

RULES = yaml.safe_load((ROOT / "prometheus/rules/watch.yml").read_text())["groups"]
ALERTS = [rule for group in RULES for rule in group["rules"] if "alert" in rule]
# promtool tests the waits.
WITHOUT_WAITS = {**COMPRESSED, "for: 2m": "for: 0s", "for: 10m": "for: 0s", "interval: 1m": "interval: 1s"}
AGES = ("Since the last commit: A", "Watcher: age", "Since the configuration was read: A")
RATES = (
    "Failures by reason: A",
    "Since the last batch: A",
    "Requests and rounds: requests",
    "Requests and rounds: rounds",
    "Requests and rounds: searches",
)


def test_prometheus_without_a_watcher_has_no_target_and_no_alert_for_it(stack: Stack) -> None:
    wait_until_equal(lambda: sorted(stack.get("scrape_pools")["scrapePools"]), ["delta-watch", "pushgateway"])
    assert [target["scrapePool"] for target in stack.get("targets")["activeTargets"]] == ["pushgateway"]
    for rule in ALERTS:
        assert stack.query(rule["expr"]) == [], rule["alert"]
    assert stack.query(queries(CONSUMERS, table=".*", consumer=".*")["Time to catch up: A"]) == []


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that has found a watcher by its file of targets."""
    folder = tmp_path_factory.mktemp("watched")
    with local_stack(folder, WITHOUT_WAITS) as running, watcher() as address:
        targets = folder / "prometheus" / "targets" / "watch.yml"
        text = targets.read_text()
        assert text.endswith("\n- targets: []\n")
        targets.write_text(text.replace("- targets: []", f'- targets: ["{address}"]'))
        wait_until_equal(lambda: running.query('up{job="delta-watch"}'), [1.0])
        yield running


def test_alerts_without_their_waits_fire_for_the_consumers_that_they_are_about(watched: Stack) -> None:
    def firing() -> set[str]:
        alerts = [alert for alert in watched.get("alerts")["alerts"] if alert["state"] == "firing"]
        return {alert["labels"]["alertname"] for alert in alerts} - {"Visits lag unknown"}

    expected = ("BatchTooLong", "Behind", "Late", "Retention", "Stalled", "Unknown")
    wait_until_equal(firing, {f"DeltaConsumer{what}" for what in expected})


def test_queries_of_the_dashboard_return_what_its_panels_promise(watched: Stack) -> None:
    expected: dict[str, list[float] | list[bool]] = {
        "Alerts in Prometheus": [1.0] * 6,
        "Lag now: A": [0.0, 3.0],
        "Lag in time now: A": [0.0, 4000.0],
        "Time to catch up: A": [0.0, inf],  # the other one does not come closer
        "Since the last commit: A": [True, True],
        "State: A": [0.0, 2.0, 3.0],
        "Versions: head": [4.0, 9.0],
        "Versions: read": [4.0, 6.0],
        "Lag in versions: A": [0.0, 3.0],
        "Lag in time: A": [0.0, 4000.0],
        "Running batch: A": [0.0, 3700.0],
        "Until the log is cleaned up: A": [82400.0],
        "Since the last batch: A": [True, True],
        "Batches: A": [0.0, 0.0],
        "Requests and rounds: requests": [True],
        "Requests and rounds: rounds": [True],
        "Requests and rounds: searches": [False, True],
        "Queries without a table: A": [0.0],
        "Configuration: A": [1.0],
        "Since the configuration was read: A": [True],
        "Backlog in bytes: A": [0.0, 4096.0],
        "Backlog in rows: A": [0.0, 9.0],
        "Backlog in files: A": [0.0, 5.0],
        "Rewrites ahead: A": [0.0, 1.0],
        "Failures by reason: A": [True],
        "Watcher: duration": [0.25],
        "Watcher: age": [True],
    }

    def shown() -> dict[str, list[float] | list[bool]]:
        every = queries(CONSUMERS, table=".*", consumer=".*")
        found = {place: sorted(watched.query(query)) for place, query in every.items()}
        ages = {place: [0 <= age < 600 for age in found[place]] for place in AGES}
        return {**found, **ages, **{place: [rate > 0 for rate in found[place]] for place in RATES}}

    wait_until_equal(shown, expected)


@pytest.mark.parametrize(
    ("chosen", "lags", "states"),
    [
        ({"table": ".*", "consumer": "(fraud|search)"}, [0.0, 3.0], [0.0, 2.0]),
        # Grafana escapes what is special in a regular expression.
        ({"table": re.escape(VISITS).replace("\\", "\\\\"), "consumer": ".*"}, [3.0], [2.0, 3.0]),
        ({"table": ORDERS, "consumer": ".*"}, [0.0], [0.0]),
        ({"table": ORDERS, "consumer": "fraud"}, [], []),
    ],
)
def test_panels_show_only_the_chosen_tables_and_consumers(
    watched: Stack, chosen: dict[str, str], lags: list[float], states: list[float]
) -> None:
    query = queries(CONSUMERS, **chosen)
    wait_until_equal(lambda: sorted(watched.query(query["Lag now: A"])), lags)
    wait_until_equal(lambda: sorted(watched.query(query["State: A"])), states)


def test_variables_offer_all_tables_and_the_consumers_of_the_chosen_ones(watched: Stack) -> None:
    def values(number: int, table: str = "") -> list[str]:
        query = CONSUMERS["templating"]["list"][number]["query"]["query"].replace("$table", table)
        series, label = re.fullmatch(r"label_values\((.+), (\w+)\)", query).groups()  # type: ignore[union-attr]
        return list(watched.get(f"label/{quote(label)}/values?{urlencode({'match[]': series})}"))

    assert values(0) == sorted([ORDERS, VISITS])
    assert values(1, ".*") == ["fraud", "lost", "search"]
    assert values(1, ORDERS) == ["search"]
