"""Grafana's files fit Grafana's own types, each other, Prometheus' rules and the README."""

import re

from delta_watch.page import SOON
from demo.stack import ALERT, LAG, REAL, ROOT
from tests.helpers.grafana_files import (
    ALERTING,
    CONSUMERS,
    DASHBOARD,
    DASHBOARDS,
    DATASOURCES,
    PROVIDERS,
    RULE,
    Json,
    Rule,
    dangling,
    lost_keys_of_dashboard,
    lost_keys_of_rule,
    queries,
)

import pytest
import yaml

PANELS = {panel["title"]: panel for panel in DASHBOARD["panels"]}
every_dashboard = pytest.mark.parametrize("dashboard", DASHBOARDS, ids=[each["uid"] for each in DASHBOARDS])


def test_round_trip_keeps_every_key() -> None:
    assert [lost_keys_of_dashboard(each) for each in DASHBOARDS] == [set(), set()]
    assert lost_keys_of_rule(RULE) == set()


def test_references_in_the_files_have_a_target() -> None:
    assert list(dangling(DATASOURCES, ALERTING, DASHBOARD)) == []
    assert list(dangling(DATASOURCES, {"groups": []}, CONSUMERS)) == []


def test_query_threshold_and_times_are_the_same_everywhere() -> None:
    rule, query = Rule.from_file(REAL), RULE["data"][0]["model"]
    rules = yaml.safe_load((ROOT / "prometheus/rules/visits.yml").read_text())["groups"]
    ((group, same),) = [(g, r) for g in rules for r in g["rules"] if r.get("alert") == ALERT]
    assert RULE["title"] == ALERT == PANELS["Alert in Grafana"]["options"]["alertName"]
    assert {LAG, rule.query, queries()["Lag now: A"], queries()["Versions and lag: lag"]} == {LAG}
    assert same["expr"] == f"{LAG} > {rule.threshold}"
    assert (group["interval"], same["for"]) == (ALERTING["groups"][0]["interval"], RULE["for"]) == ("1m", "2m")
    assert (RULE["noDataState"], RULE["execErrState"]) == ("Alerting", "Alerting")
    assert (query["instant"], query["range"]) == (True, False)
    in_readme = [
        f"```\n{LAG}\n```",
        f"IS ABOVE **{rule.threshold}**",
        "| **New evaluation group** | any name, interval **1m** |",
        "| **Pending period** | **2m** |",
        f"`{ALERT}`",
        f"`{ALERTING['groups'][0]['folder']}`",
        "no data or all values null: **Alerting**; error or timeout: **Alerting** |",
        "| **Options** → **Type** | **Instant** |",
    ]
    readme = (ROOT / "README.md").read_text()
    assert [text for text in in_readme if text not in readme] == []


def test_colors_of_visits_lag_change_at_the_thresholds_of_the_alerts() -> None:
    threshold = Rule.from_file(REAL).threshold
    lag_now = PANELS["Lag now"]["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert lag_now[-1] == {"value": threshold + 1, "color": "red"}  # a lag is a whole number
    (lag,) = PANELS["Versions and lag"]["fieldConfig"]["overrides"]
    properties = {each["id"]: each["value"] for each in lag["properties"]}
    assert properties["thresholds"]["steps"][-1] == {"value": threshold, "color": "red"}
    assert properties["custom.axisSoftMax"] > threshold  # a line above the axis is not drawn
    rules = (ROOT / "prometheus/rules/visits.yml").read_text()
    silence = PANELS["Since the last push"]["fieldConfig"]["defaults"]["thresholds"]["steps"][-1]["value"]
    assert rules.count(f"> 0) > {silence}\n") == 2


def test_colors_of_delta_consumers_change_at_the_thresholds_of_the_alerts() -> None:
    rules = (ROOT / "prometheus/rules/watch.yml").read_text()
    defaults = {panel["title"]: panel["fieldConfig"]["defaults"] for panel in CONSUMERS["panels"]}
    stepped = {title: default["thresholds"]["steps"] for title, default in defaults.items() if "thresholds" in default}
    last = {title: steps[-1]["value"] for title, steps in stepped.items()}
    limits = dict(re.findall(r"alert: (.+)\n +expr: .* [<>] (\d+)\n", rules))
    assert last["Lag now"] - 1 == last["Lag in versions"] == int(limits["DeltaConsumerBehind"])
    assert last["Lag in time now"] == last["Lag in time"] == int(limits["DeltaConsumerLate"])
    assert last["Running batch"] == int(limits["DeltaConsumerBatchTooLong"])
    assert SOON == last["Until the log is cleaned up"] == int(limits["DeltaConsumerRetention"])
    assert last["Watcher"] == int(limits["DeltaWatcherStuck"])
    # A threshold above the axis is not drawn.
    dashed = {panel["title"] for panel in CONSUMERS["panels"] if "dashed line" in panel["description"]}
    assert dashed == {"Lag in versions", "Until the log is cleaned up", "Running batch", "Watcher"}
    assert all(defaults[title]["custom"]["axisSoftMax"] > last[title] for title in dashed)


@every_dashboard
def test_panels_do_not_overlap(dashboard: Json) -> None:
    occupied: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in cells) < 24, panel["title"]
        assert not cells & occupied, panel["title"]
        occupied |= cells
    ids = [panel["id"] for panel in dashboard["panels"]]
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
