"""The checks of Grafana's and Kubernetes' files find what is wrong in them: each file, broken at one place."""

import copy
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from demo.stack import ROOT
from tests.helpers.grafana_files import (
    ALERTING,
    CONSUMERS,
    DASHBOARD,
    DASHBOARDS,
    DATASOURCES,
    RULE,
    Json,
    dangling,
    lost_keys_of_dashboard,
    lost_keys_of_rule,
)

import pytest
import yaml
from jsonschema import Draft202012Validator, ValidationError  # type: ignore[import-untyped]


def schema(name: str) -> Json:
    loaded: Json = yaml.safe_load((ROOT / "tests" / "stack" / "schemas" / f"{name}.yml").read_text())
    return loaded


def misspell(tree: Any, key: str) -> None:
    tree[f"{key}s"] = tree.pop(key)


def misspelt_keys(tree: Any, place: str) -> Iterator[str]:
    """Yield the place of each key in `tree`. Until the next one, this key, and no other, is misspelt."""
    if isinstance(tree, dict | list):
        for key, value in list(tree.items() if isinstance(tree, dict) else enumerate(tree)):
            yield from misspelt_keys(value, f"{place}.{key}")
            if isinstance(tree, dict):
                misspell(tree, key)
                yield f"{place}.{key}"
                tree[key] = tree.pop(f"{key}s")


def test_schema_finds_each_misspelt_key_of_each_panel() -> None:
    valid = Draft202012Validator({"$ref": "#/$defs/panel", "$defs": schema("dashboard")["$defs"]}).is_valid
    for panel in (panel for dashboard in copy.deepcopy(DASHBOARDS) for panel in dashboard["panels"]):
        assert valid(panel)
        assert [place for place in misspelt_keys(panel, panel["title"]) if valid(panel)] == []


@pytest.mark.parametrize(
    ("lost_keys", "written", "place"),
    [
        (lost_keys_of_dashboard, DASHBOARD, "$.refresh"),
        (lost_keys_of_dashboard, DASHBOARD, "$.panels[3].targets[2].expr"),
        (lost_keys_of_dashboard, DASHBOARD, "$.panels[0].options.colorMode"),
        (lost_keys_of_dashboard, DASHBOARD, "$.panels[3].fieldConfig.defaults.custom.lineInterpolation"),
        (lost_keys_of_dashboard, CONSUMERS, "$.templating.list[1].includeAll"),
        *((lost_keys_of_rule, RULE, f"$.{key}") for key in ("execErrState", "noDataState", "for", "condition")),
    ],
)
def test_round_trip_with_misspelt_key_loses_it(
    lost_keys: Callable[[Json], set[str]], written: Json, place: str
) -> None:
    broken = copy.deepcopy(written)
    *parents, key = re.findall(r"\w+", place)
    parent: Any = broken
    for step in parents:
        parent = parent[int(step) if step.isdigit() else step]
    misspell(parent, key)
    assert lost_keys(broken) == {f"{place}s"}


@pytest.mark.parametrize(
    ("break_it", "place"),
    [
        (lambda s, a, d, c: s["datasources"][0].update(uid="prom"), "dashboard.panels[0].datasource.uid: prometheus"),
        (lambda s, a, d, c: d.update(uid="lag"), "alerting.groups[0].rules[0].dashboardUid: visits-lag"),
        (lambda s, a, d, c: d["panels"][3].update(id=9), "alerting.groups[0].rules[0].panelId: 1"),
        (lambda s, a, d, c: a["groups"][0]["rules"][0].update(condition="C"), "visits-consumer-lag: C"),
        (lambda s, a, d, c: a["groups"][0]["rules"][0]["data"][0].update(refId="Q"), "visits-consumer-lag: A"),
        (lambda s, a, d, c: d["panels"][3]["targets"][2].update(refId="delay"), "Versions and lag: lag"),
        (lambda s, a, d, c: c["templating"]["list"][0].update(name="t"), "dashboard.panels[0].targets[0].expr: $table"),
        (
            lambda s, a, d, c: c["templating"]["list"][0].update(name="t"),
            "dashboard.templating.list[1].query.query: $table",
        ),
    ],
)
def test_references_without_a_target_are_found(break_it: Callable[..., None], place: str) -> None:
    broken = copy.deepcopy((DATASOURCES, ALERTING, DASHBOARD, CONSUMERS))
    break_it(*broken)
    sources, alerting, dashboard, consumers = broken
    assert place in [*dangling(sources, alerting, dashboard), *dangling(sources, {"groups": []}, consumers)]


def places(error: ValidationError) -> Iterator[str]:
    """Yield the place of an error, and of those that caused it."""
    yield error.json_path
    for cause in error.context:
        yield from places(cause)


@pytest.mark.parametrize(
    ("file", "written", "misspelt", "place"),
    [
        ("datasources/prometheus.yml", "httpMethod:", "httpMethode:", "$.datasources[0].jsonData"),
        ("datasources/prometheus.yml", "access: proxy", "access: proxi", "$.datasources[0].access"),
        ("dashboards/visits.yml", "allowUiUpdates:", "allowUIUpdates:", "$.providers[0]"),
        ("alerting/visits.yml", "execErrState:", "executionErrorState:", "$.groups[0].rules[0]"),
        ("alerting/visits.yml", "noDataState: Alerting", "noDataState: Alert", "$.groups[0].rules[0].noDataState"),
        ("alerting/visits.yml", "interval: 1m", "interval: 15s", "$.groups[0].interval"),
        ("alerting/visits.yml", "type: gt", "type: above", "conditions[0].evaluator.type"),
        ("alerting/visits.yml", "range: false", "range: true", "data[0].model.range"),
        ("visits-lag.json", '"stepAfter"', '"step"', "$.panels[3].fieldConfig.defaults.custom.lineInterpolation"),
        ("visits-lag.json", '"dashed"', '"dash"', "$.panels[3].fieldConfig.overrides[0].properties[5].value.mode"),
        ("visits-lag.json", '"now-30m"', '"now-30"', "$.time.from"),
        ("delta-consumers.json", '"includeAll"', '"includeall"', "$.templating.list[0]"),
        ("delta-consumers.json", "label_values(", "label_value(", "$.templating.list[0].query.query"),
        ("delta-consumers.json", '"special"', '"value"', "$.panels[0].fieldConfig.defaults.mappings"),
        (
            "delta-consumers.json",
            '"purple"',
            '"green"',
            "panels[0].fieldConfig.defaults.mappings[0].options.result.color",
        ),
        ("delta-consumers.json", '"unit": "s"', '"unit": "s", "decimals": 0', "$.panels[1].fieldConfig.defaults"),
        ("delta-consumers.json", '"unit": "bytes"', '"unit": "byte"', "$.panels[9].fieldConfig.defaults.unit"),
        ("kubernetes/deployment.yml", "containerPort:", "containerport:", "containers[0].ports[0]"),
        ("kubernetes/deployment.yml", "lag-detector:1.0.0", "lag-detector:latest", "containers[0].image"),
        ("kubernetes/deployment.yml", "runAsNonRoot:", "runAsNonroot:", "containers[0].securityContext"),
        ("kubernetes/scaled-object.yml", "maxReplicaCount:", "maxReplicas:", "$.spec"),
        ("kubernetes/scaled-object.yml", 'threshold: "1"', "threshold: 1", "triggers[0].metadata.threshold"),
        (
            "kubernetes/scaled-object.yml",
            'ignoreNullValues: "false"',
            "ignoreNullValues: false",
            "metadata.ignoreNullValues",
        ),
    ],
)
def test_schema_finds_what_is_misspelt_and_names_the_place(file: str, written: str, misspelt: str, place: str) -> None:
    kind = file.partition("/")[0] if "/" in file else "dashboard"
    folder = {"kubernetes": "deploy", "dashboard": "grafana/dashboards"}.get(kind, "grafana/provisioning")
    text = (ROOT / folder / file).read_text()
    assert written in text
    load = json.loads if file.endswith(".json") else yaml.safe_load
    validator = Draft202012Validator(schema(kind))
    assert list(validator.iter_errors(load(text))) == []
    errors = validator.iter_errors(load(text.replace(written, misspelt)))
    assert any(found.endswith(place) for error in errors for found in places(error))
