"""Grafana's files, and what its alert rule would do. Grafana itself does not run here."""

import copy
import json
import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any, NamedTuple

from demo.stack import ROOT, Stack

import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import alerting, dashboard

Json = dict[str, Any]
GRAFANA = ROOT / "grafana"


def load(path: str) -> Json:
    """Read a YAML file under grafana/."""
    loaded: Json = yaml.safe_load((GRAFANA / path).read_text())
    return loaded


DATASOURCES = load("provisioning/datasources/prometheus.yml")
PROVIDERS = load("provisioning/dashboards/visits.yml")
ALERTING = load("provisioning/alerting/visits.yml")
DASHBOARD: Json = json.loads((GRAFANA / "dashboards/visits-lag.json").read_text())
CONSUMERS: Json = json.loads((GRAFANA / "dashboards/delta-consumers.json").read_text())  # the watcher's dashboard
DASHBOARDS = (DASHBOARD, CONSUMERS)
((RULE,),) = [group["rules"] for group in ALERTING["groups"]]

register_default_plugins()


def leaves(tree: Any, place: str = "$") -> Iterator[tuple[str, Any]]:
    """Yield the place and the value of everything in a tree that contains nothing else."""
    if tree and isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, f"{place}.{key}")
    elif tree and isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from leaves(value, f"{place}[{index}]")
    else:
        yield place, tree


def lost_keys_of_dashboard(written: Json) -> set[str]:
    """Return the places of what Grafana's own types lose of a dashboard."""
    return _lost_keys(dashboard.Dashboard, written)


def lost_keys_of_rule(written: Json) -> set[str]:
    """Return the places of what they lose of an alert, apart from what they lack."""
    # Grafana's export has four keys that the types lack: two for the link to a panel, two in a classic condition.
    condition = "$.data[1].model.conditions[0]"
    lacking = {"$.dashboardUid", "$.panelId", f"{condition}.type", f"{condition}.reducer.params"}
    return _lost_keys(alerting.Rule, written) ^ lacking


def _lost_keys(model: Any, written: Json) -> set[str]:
    kept = dict(leaves(json.loads(JSONEncoder().encode(model.from_json(copy.deepcopy(written))))))
    return {place for place, value in leaves(written) if kept.get(place, "lost") != value}


def dangling(datasources: Json, alerting: Json, dashboard: Json) -> Iterator[str]:
    """Yield the places that refer to something that does not exist, and what they refer to."""
    sources = {source["uid"] for source in datasources["datasources"]} | {"__expr__", "-- Grafana --"}
    panels = {panel["id"] for panel in dashboard["panels"]}
    variables = {variable["name"] for variable in dashboard.get("templating", {}).get("list", [])}
    for place, value in (*leaves(alerting, "alerting"), *leaves(dashboard, "dashboard")):
        if isinstance(value, str) and place.startswith("dashboard."):
            named = set(re.findall(r"\$\{?([a-z]\w*)", value))
            yield from (f"{place}: ${name}" for name in sorted(named - variables))
        if place.endswith((".datasource.uid", ".datasourceUid")) and value not in sources:
            yield f"{place}: {value}"
        if place.endswith((".dashboardUid", ".__dashboardUid__")) and value != dashboard["uid"]:
            yield f"{place}: {value}"
        if place.endswith((".panelId", ".__panelId__")) and int(value) not in panels:
            yield f"{place}: {value}"
    for rule in (rule for group in alerting["groups"] for rule in group["rules"]):
        queries = [query["refId"] for query in rule["data"]]
        used = [rule["condition"], *(query["model"]["refId"] for query in rule["data"])]
        for query in rule["data"]:
            used += [ref for condition in query["model"].get("conditions", []) for ref in condition["query"]["params"]]
        yield from (f"{rule['uid']}: {ref}" for ref in used if ref not in queries)
    for panel in dashboard["panels"]:
        series = [target["refId"] for target in panel.get("targets", [])]
        for override in panel["fieldConfig"]["overrides"]:
            if override["matcher"]["options"] not in series:
                yield f"{panel['title']}: {override['matcher']['options']}"


def queries(dashboard: Json = DASHBOARD, **chosen: str) -> dict[str, str]:
    """Return a dashboard's queries by their place: the panel's title and its target, or the annotation's name.

    Args:
        dashboard: the tutorial's, or another one.
        chosen: a regular expression for each variable of the dashboard, as Grafana puts it into the queries.
    """
    found = {
        annotation["name"]: annotation["expr"]
        for annotation in dashboard["annotations"]["list"]
        if "expr" in annotation
    }
    for panel in dashboard["panels"]:
        found |= {f"{panel['title']}: {target['refId']}": target["expr"] for target in panel.get("targets", [])}
    return {place: re.sub(r"\$(\w+)", lambda name: chosen[str(name[1])], query) for place, query in found.items()}


class Rule(NamedTuple):
    """The alert rule from its provisioning file, evaluated as Grafana's documentation describes it."""

    query: str
    threshold: float
    no_data: str
    interval: float
    pending_period: float

    @classmethod
    def from_file(cls, timing: dict[str, str]) -> "Rule":
        """Read the rule, with its times replaced as in `timing`."""
        (group,) = ALERTING["groups"]
        (rule,) = group["rules"]
        query, condition = rule["data"]
        (classic,) = condition["model"]["conditions"]
        assert (classic["reducer"]["type"], classic["evaluator"]["type"]) == ("last", "gt")
        assert (rule["condition"], classic["query"]["params"]) == (condition["refId"], [query["refId"]])
        interval, pending_period = (
            _seconds(timing.get(line, line).split()[1])
            for line in (f"interval: {group['interval']}", f"for: {rule['for']}")
        )
        (threshold,) = classic["evaluator"]["params"]
        return cls(query["model"]["expr"], threshold, rule["noDataState"], interval, pending_period)

    def states(self, stack: Stack, begin: float, end: float) -> list[str]:
        """Evaluate the rule at its interval on what Prometheus had then, and return the states without repetitions.

        Args:
            stack: the stack of the Prometheus.
            begin: Unix time of the first evaluation.
            end: Unix time after which there is none.
        """
        states, breached_since, at = ["Normal"], None, begin
        while at <= end:
            values = stack.query(self.query, at)
            # A classic condition is true if it is for the last value of any series.
            breached = any(value > self.threshold for value in values) if values else self.no_data == "Alerting"
            breached_since = (breached_since or at) if breached else None
            if breached_since is None:
                states.append("Normal")
            else:
                states.append("Pending" if at - breached_since < self.pending_period else "Alerting")
            at += self.interval
        return [state for state, _ in groupby(states)]


def _seconds(duration: str) -> float:
    return float(duration[:-1]) * {"s": 1, "m": 60}[duration[-1]]
