"""Grafana's files fit Grafana's own types, each other, Prometheus' rules and the README."""

import copy
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from demo.stack import ALERT, LAG, REAL, ROOT
from tests.grafana import (
    ALERTING,
    CONSUMERS,
    DASHBOARD,
    DASHBOARDS,
    DATASOURCES,
    PROVIDERS,
    Json,
    Rule,
    dangling,
    lost_keys,
    queries,
)

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import alerting, dashboard

register_default_plugins()
((RULE,),) = [group["rules"] for group in ALERTING["groups"]]
PANELS = {panel["title"]: panel for panel in DASHBOARD["panels"]}
every_dashboard = pytest.mark.parametrize("of", DASHBOARDS, ids=[each["uid"] for each in DASHBOARDS])


def round_trip(model: Any, written: Json) -> Json:
    kept: Json = json.loads(JSONEncoder().encode(model.from_json(copy.deepcopy(written))))
    return kept


def lost_keys_of_rule(rule: Json) -> set[str]:
    # Grafana's export has four keys that the types lack: two for the link to a panel, two in a classic condition.
    condition = "$.data[1].model.conditions[0]"
    lacking = {"$.dashboardUid", "$.panelId", f"{condition}.type", f"{condition}.reducer.params"}
    return set(lost_keys(rule, round_trip(alerting.Rule, rule))) ^ lacking


@every_dashboard
def test_round_trip_of_dashboard_keeps_every_key(of: Json) -> None:
    assert list(lost_keys(of, round_trip(dashboard.Dashboard, of))) == []


def test_round_trip_of_alert_keeps_every_key() -> None:
    assert lost_keys_of_rule(RULE) == set()


def misspell(tree: Any, key: str) -> None:
    tree[f"{key}s"] = tree.pop(key)


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
    assert list(lost_keys(broken, round_trip(dashboard.Dashboard, broken))) == [f"{place}s"]


def test_round_trip_of_variable_with_misspelt_key_loses_it() -> None:
    broken = copy.deepcopy(CONSUMERS)
    misspell(broken["templating"]["list"][1], "includeAll")
    assert list(lost_keys(broken, round_trip(dashboard.Dashboard, broken))) == ["$.templating.list[1].includeAlls"]


@pytest.mark.parametrize("key", ["execErrState", "noDataState", "for", "condition"])
def test_round_trip_of_alert_with_misspelt_key_loses_it(key: str) -> None:
    broken = copy.deepcopy(RULE)
    misspell(broken, key)
    assert lost_keys_of_rule(broken) == {f"$.{key}s"}


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
        ("visits-lag.json", '"alertName"', '"alertname"', "$.panels[2].options"),
        ("visits-lag.json", '"dashed"', '"dash"', "$.panels[3].fieldConfig.overrides[0].properties[5].value.mode"),
        ("visits-lag.json", '"now-30m"', '"now-30"', "$.time.from"),
        ("delta-consumers.json", '"includeAll"', '"includeall"', "$.templating.list[0]"),
        ("delta-consumers.json", "label_values(", "label_value(", "$.templating.list[0].query.query"),
        ("delta-consumers.json", '"unit": "bytes"', '"unit": "byte"', "$.panels[9].fieldConfig.defaults.unit"),
    ],
)
def test_lint_of_misspelt_file_names_the_place(
    file: str, written: str, misspelt: str, place: str, tmp_path: Path
) -> None:
    kind, _, name = file.rpartition("/")
    schema, folder = (f"{kind}.yml", f"provisioning/{kind}") if kind else ("dashboard.yml", "dashboards")
    text = (ROOT / "grafana" / folder / name).read_text()
    assert written in text
    (tmp_path / name).write_text(text.replace(written, misspelt))
    lint = str(Path(sys.executable).parent / "check-jsonschema")
    command = [lint, "--schemafile", str(ROOT / "tests" / "schemas" / schema), str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert f"{place}: " in done.stdout


def test_references_in_the_files_have_a_target() -> None:
    assert list(dangling(DATASOURCES, ALERTING, DASHBOARD)) == []
    assert list(dangling(DATASOURCES, {"groups": []}, CONSUMERS)) == []


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


def test_query_threshold_and_times_are_the_same_everywhere() -> None:
    rule = Rule.from_file(REAL)
    rules = yaml.safe_load((ROOT / "prometheus/rules/visits.yml").read_text())["groups"]
    ((group, of_prometheus),) = [(g, r) for g in rules for r in g["rules"] if r.get("alert") == ALERT]
    readme = (ROOT / "README.md").read_text()
    assert RULE["title"] == ALERT == PANELS["Alert in Grafana"]["options"]["alertName"]
    assert {LAG, rule.query, queries()["Lag now: A"], queries()["Versions and lag: lag"]} == {LAG}
    assert of_prometheus["expr"] == f"{LAG} > {rule.threshold}"
    assert f"```\n{LAG}\n```" in readme
    assert f"IS ABOVE **{rule.threshold}**" in readme
    assert (group["interval"], of_prometheus["for"]) == (ALERTING["groups"][0]["interval"], RULE["for"]) == ("1m", "2m")
    assert "| **New evaluation group** | any name, interval **1m** |" in readme
    assert "| **Pending period** | **2m** |" in readme
    assert f"`{ALERT}`" in readme
    assert f"`{ALERTING['groups'][0]['folder']}`" in readme
    assert (RULE["noDataState"], RULE["execErrState"]) == ("Alerting", "Alerting")
    assert "no data or all values null | **Alerting** |" in readme
    assert "error or timeout | **Alerting** |" in readme


def test_colors_of_visits_lag_change_at_the_thresholds_of_the_alerts() -> None:
    threshold = Rule.from_file(REAL).threshold
    lag_now = PANELS["Lag now"]["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert lag_now[-1] == {"value": threshold + 1, "color": "red"}  # a lag is a whole number
    line = PANELS["Versions and lag"]["fieldConfig"]["overrides"][0]["properties"][-1]["value"]["steps"]
    assert line[-1] == {"value": threshold, "color": "red"}
    rules = (ROOT / "prometheus/rules/visits.yml").read_text()
    silence = PANELS["Since the last push"]["fieldConfig"]["defaults"]["thresholds"]["steps"][-1]["value"]
    assert rules.count(f"> 0) > {silence}\n") == 2


def test_colors_of_delta_consumers_change_at_the_thresholds_of_the_alerts() -> None:
    rules = (ROOT / "prometheus/rules/watch.yml").read_text()
    defaults = {panel["title"]: panel["fieldConfig"]["defaults"] for panel in CONSUMERS["panels"]}
    last = {title: of["thresholds"]["steps"][-1]["value"] for title, of in defaults.items() if "thresholds" in of}
    of_rule = dict(re.findall(r"alert: (.+)\n +expr: .* > (\d+)\n", rules))
    assert last["Lag now"] - 1 == last["Lag in versions"] == int(of_rule["Delta consumer behind"])
    assert last["Lag in time now"] == last["Lag in time"] == int(of_rule["Delta consumer late"])
    assert last["Running batch"] == int(of_rule["Delta consumer batch too long"])
    assert last["Watcher"] == int(of_rule["Delta watcher stuck"])


@every_dashboard
def test_panels_do_not_overlap(of: Json) -> None:
    occupied: set[tuple[int, int]] = set()
    for panel in of["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in cells) < 24, panel["title"]
        assert not cells & occupied, panel["title"]
        occupied |= cells
    ids = [panel["id"] for panel in of["panels"]]
    assert len(ids) == len(set(ids))


def test_dashboards_have_names_of_their_own() -> None:
    files = sorted((ROOT / "grafana" / "dashboards").iterdir())
    assert [file.stem for file in files] == sorted(each["uid"] for each in DASHBOARDS)
    assert len({each["title"] for each in DASHBOARDS}) == len(DASHBOARDS)


def test_provisioned_alert_without_the_extra_compose_file_is_not_loaded() -> None:
    mounts = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["grafana"]["volumes"]
    extra = yaml.safe_load((ROOT / "docker-compose.alert.yml").read_text())["services"]["grafana"]["volumes"]
    provisioning = "./grafana/provisioning/{0}:/etc/grafana/provisioning/{0}:ro"
    (path,) = [provider["options"]["path"] for provider in PROVIDERS["providers"]]
    assert sorted(mount for mount in mounts if "grafana/" in mount.split(":")[0]) == [
        f"./grafana/dashboards:{path}:ro",
        provisioning.format("dashboards"),
        provisioning.format("datasources"),
    ]
    assert extra == [provisioning.format("alerting")]
    assert PROVIDERS["providers"][0]["folder"] != ALERTING["groups"][0]["folder"]
