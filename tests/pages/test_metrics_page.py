"""docs/metrics.md names the metrics that exist, with their types and labels, and no others."""

import re
from typing import Any

from tutorial.visits import READER_VERSION, WRITER_VERSION

from demo.stack import ROOT
from tests.helpers.grafana_files import CONSUMERS, DASHBOARDS, queries
from tests.helpers.watcher_answers import metrics

import pytest
import yaml

PAGE = (ROOT / "docs" / "metrics.md").read_text()
RULES: list[dict[str, Any]] = [
    rule
    for file in sorted((ROOT / "prometheus" / "rules").iterdir())
    for group in yaml.safe_load(file.read_text())["groups"]
    for rule in group["rules"]
]
RECORDED = {rule["record"] for rule in RULES if "record" in rule}


Row = dict[str, str]


def rows(heading: str) -> list[Row]:
    """Return the rows of the table under a heading of the page."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    cells = [[cell.strip(" `") for cell in line[1:-1].split("|")] for line in section.splitlines() if line[:1] == "|"]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


PUSHED, WATCHED, OF_PROMETHEUS = map(
    rows, ("Pushed by the writer and the consumers", "Exported by the watcher", "Recorded by Prometheus")
)
DOCUMENTED = {row["metric"] for row in (*PUSHED, *WATCHED, *OF_PROMETHEUS)}


def named(promql: str) -> set[str]:
    """Return the names of the project's metrics in a query, without what its strings contain."""
    return set(re.findall(r"\b(?:(?:delta|visits|push)_\w+|up)\b", re.sub(r'"[^"]*"', "", promql)))


def test_pushed_metrics_equal_those_of_the_tutorial_and_the_pushgateway() -> None:
    gauges = {f"{version}{end}" for version in (WRITER_VERSION, READER_VERSION) for end in ("", "_timestamp_seconds")}
    assert {row["metric"] for row in PUSHED} == gauges | {"push_time_seconds", "push_failure_time_seconds"}


def test_metrics_of_the_watcher_have_the_names_types_and_labels_that_it_exports() -> None:
    exported = {
        (sample.name, family.type, ", ".join(sample.labels))
        for family in metrics(now=0, rounds=1)
        for sample in family.samples
    }
    assert sorted((row["metric"], row["type"], row["labels"]) for row in WATCHED) == sorted(exported)


def test_recorded_metrics_equal_those_of_the_rules() -> None:
    assert {row["metric"] for row in OF_PROMETHEUS} == RECORDED | {"up"}


def all_queries(dashboard: dict[str, Any]) -> list[str]:
    variables = [variable["query"]["query"] for variable in dashboard.get("templating", {}).get("list", [])]
    return [*queries(dashboard, table=".*", consumer=".*").values(), *variables]


def test_metrics_that_rules_and_dashboards_use_are_on_the_page_and_those_of_the_watcher_on_its_dashboard() -> None:
    used = [rule["expr"] for rule in RULES] + [query for each in DASHBOARDS for query in all_queries(each)]
    assert set().union(*map(named, used)) - DOCUMENTED == set()
    assert {row["metric"] for row in WATCHED} - set().union(*map(named, all_queries(CONSUMERS))) == set()


@pytest.mark.parametrize("row", [*PUSHED, *WATCHED, *OF_PROMETHEUS], ids=lambda row: row["metric"])
def test_names_follow_the_conventions_of_prometheus(row: Row) -> None:
    assert (row["type"] == "counter") == row["metric"].endswith("_total")
    assert (row["unit"] == "seconds") == row["metric"].endswith("_seconds")
    assert all(value for column, value in row.items() if column != "labels")
