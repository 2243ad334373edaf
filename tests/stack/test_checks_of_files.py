"""The checks of Grafana's and Kubernetes' files find what is wrong in them: each file, broken at one place."""

import copy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
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
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]


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
    schema = yaml.safe_load((ROOT / "tests/stack/schemas/dashboard.yml").read_text())
    valid = Draft202012Validator({"$ref": "#/$defs/panel", "$defs": schema["$defs"]}).is_valid
    for panel in (panel for dashboard in copy.deepcopy(DASHBOARDS) for panel in dashboard["panels"]):
        assert valid(panel)
        assert [place for place in misspelt_keys(panel, panel["title"]) if valid(panel)] == []


@pytest.mark.parametrize(
    ("place", "parent", "key"),
    [
        ("$.refresh", lambda d: d, "refresh"),
        ("$.panels[3].targets[2].expr", lambda d: d["panels"][3]["targets"][2], "expr"),
        ("$.panels[0].options.colorMode", lambda d: d["panels"][0]["options"], "colorMode"),
        (
            "$.panels[3].fieldConfig.defaults.custom.lineInterpolation",
            lambda d: d["panels"][3]["fieldConfig"]["defaults"]["custom"],
            "lineInterpolation",
        ),
    ],
)
def test_round_trip_of_dashboard_with_misspelt_key_loses_it(
    place: str, parent: Callable[[Json], Json], key: str
) -> None:
    broken = copy.deepcopy(DASHBOARD)
    misspell(parent(broken), key)
    assert lost_keys_of_dashboard(broken) == [f"{place}s"]


def test_round_trip_of_variable_with_misspelt_key_loses_it() -> None:
    broken = copy.deepcopy(CONSUMERS)
    misspell(broken["templating"]["list"][1], "includeAll")
    assert lost_keys_of_dashboard(broken) == ["$.templating.list[1].includeAlls"]


@pytest.mark.parametrize("key", ["execErrState", "noDataState", "for", "condition"])
def test_round_trip_of_alert_with_misspelt_key_loses_it(key: str) -> None:
    broken = copy.deepcopy(RULE)
    misspell(broken, key)
    assert lost_keys_of_rule(broken) == {f"$.{key}s"}


def test_reference_to_a_variable_that_does_not_exist_is_found() -> None:
    broken = copy.deepcopy(CONSUMERS)
    broken["templating"]["list"][0]["name"] = "tables"
    found = list(dangling(DATASOURCES, {"groups": []}, broken))
    assert "dashboard.panels.0.targets.0.expr: $table" in found
    assert "dashboard.templating.list.1.query.query: $table" in found


@pytest.mark.parametrize(
    ("break_it", "place"),
    [
        (lambda s, a, d: s["datasources"][0].update(uid="prom"), "dashboard.panels.0.datasource.uid: prometheus"),
        (lambda s, a, d: d.update(uid="lag"), "alerting.groups.0.rules.0.dashboardUid: visits-lag"),
        (lambda s, a, d: d["panels"][3].update(id=9), "alerting.groups.0.rules.0.panelId: 1"),
        (lambda s, a, d: a["groups"][0]["rules"][0].update(condition="C"), "visits-consumer-lag: C"),
        (lambda s, a, d: a["groups"][0]["rules"][0]["data"][0].update(refId="Q"), "visits-consumer-lag: A"),
        (lambda s, a, d: d["panels"][3]["targets"][2].update(refId="delay"), "Versions and lag: lag"),
    ],
)
def test_references_without_a_target_are_found(break_it: Callable[[Json, Json, Json], None], place: str) -> None:
    broken = copy.deepcopy((DATASOURCES, ALERTING, DASHBOARD))
    break_it(*broken)
    assert place in list(dangling(*broken))


def lint_of_broken(file: Path, written: str, misspelt: str, schema: str, folder: Path) -> str:
    """Break a copy of a file in `folder`, and return what `make lint` prints about it, which must reject it."""
    text = file.read_text()
    assert written in text
    (folder / file.name).write_text(text.replace(written, misspelt))
    lint = str(Path(sys.executable).parent / "check-jsonschema")
    command = [lint, "--schemafile", str(ROOT / "tests" / "stack" / "schemas" / schema), str(folder / file.name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    return done.stdout


@pytest.mark.slow
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
    ],
)
def test_lint_of_misspelt_file_names_the_place(
    file: str, written: str, misspelt: str, place: str, tmp_path: Path
) -> None:
    kind, _, name = file.rpartition("/")
    schema, folder = (f"{kind}.yml", f"provisioning/{kind}") if kind else ("dashboard.yml", "dashboards")
    assert f"{place}: " in lint_of_broken(ROOT / "grafana" / folder / name, written, misspelt, schema, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "written", "misspelt", "place"),
    [
        ("deployment.yml", "containerPort:", "containerport:", "containers[0].ports[0]"),
        ("deployment.yml", "lag-detector:1.0.0", "lag-detector:latest", "containers[0].image"),
        ("deployment.yml", "runAsNonRoot:", "runAsNonroot:", "containers[0].securityContext"),
        ("scaled-object.yml", "maxReplicaCount:", "maxReplicas:", "$.spec"),
        ("scaled-object.yml", 'threshold: "1"', "threshold: 1", "triggers[0].metadata.threshold"),
        ("scaled-object.yml", 'ignoreNullValues: "false"', "ignoreNullValues: false", "metadata.ignoreNullValues"),
    ],
)
def test_lint_of_misspelt_kubernetes_file_names_the_place(
    file: str, written: str, misspelt: str, place: str, tmp_path: Path
) -> None:
    broken = ROOT / "deploy" / "kubernetes" / file
    assert place in lint_of_broken(broken, written, misspelt, "kubernetes.yml", tmp_path)
