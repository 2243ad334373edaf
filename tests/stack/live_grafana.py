"""Query and photograph a real Grafana: make test-grafana. NOT YET RUN ANYWHERE: it needs Docker and its compose plugin.

Starts the compose stack on free ports with the ready-made alert, runs the scripts, and queries Grafana's HTTP API.
Written from its documentation (health, data source proxy, dashboard by uid, Prometheus-compatible rules). Once you have
run it, remove the note above. It replaces the pictures of Grafana in assets/ by those of the real one.
"""

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from assets.take_pictures import PhotographedStory, open_page
from demo.__main__ import play
from demo.compose import PORTS
from demo.stack import ALERT, REAL, Stack, wait_for
from tests.helpers.docker import stack_in_docker
from tests.helpers.grafana_files import ALERTING, DASHBOARDS, DATASOURCES, queries

import pytest

LOGIN = base64.b64encode(b"admin:admin").decode()
MINUTES = 60.0


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The compose stack, with the tutorial's own times."""
    files = ("docker-compose.yml", "docker-compose.alert.yml")
    folder = tmp_path_factory.mktemp("stack") / "compose"
    with stack_in_docker(folder, REAL, services=tuple(PORTS), files=files) as running:
        yield running


def ask(stack: Stack, path: str) -> Any:
    with urlopen(Request(stack.grafana + path, headers={"Authorization": f"Basic {LOGIN}"}), timeout=10) as response:
        return json.load(response)


def rule(stack: Stack) -> dict[str, Any]:
    groups = ask(stack, "/api/prometheus/grafana/api/v1/rules")["data"]["groups"]
    (found,) = [rule for group in groups for rule in group["rules"] if rule["name"] == ALERT]
    return dict(found)


def wait_for_rule(stack: Stack, state: str, limit: float) -> None:
    wait_for(f"Grafana's rule to be {state}", lambda: rule(stack)["state"] == state, limit)


def test_grafana_after_its_start_is_healthy_and_has_read_its_files(stack: Stack) -> None:
    assert ask(stack, "/api/health")["database"] == "ok"
    for dashboard in DASHBOARDS:
        found = ask(stack, f"/api/dashboards/uid/{dashboard['uid']}")
        assert [panel["title"] for panel in found["dashboard"]["panels"]] == [p["title"] for p in dashboard["panels"]]
        assert found["meta"]["provisioned"]
    assert rule(stack)["health"] in ("ok", "nodata")
    (group,) = ALERTING["groups"]
    (provisioned,) = ask(stack, "/api/v1/provisioning/alert-rules")
    assert (provisioned["uid"], provisioned["for"]) == (group["rules"][0]["uid"], group["rules"][0]["for"])


class GrafanaStory(PhotographedStory):
    """The story of `make pictures`, with Grafana's own pages in the same pictures. Grafana's rule follows each step."""

    def show(self, **what: Any) -> None:
        times = {"from": f"{self.start * 1000:.0f}", "to": f"{time.time() * 1000:.0f}"}
        query = {"refId": "A", "expr": what.get("expr"), "range": True, "editorMode": "code"}
        panes = {"a": {"datasource": "prometheus", "queries": [query], "range": times}}
        path, parameters = "explore", {"schemaVersion": "1", "panes": json.dumps(panes)}
        if "dashboard" in what:
            path, parameters = f"d/{what['dashboard']['uid']}", {"kiosk": "1", **times}
        self.page.goto(f"{self.stack.grafana}/{path}?{urlencode(parameters)}")

    def alert(self, state: str) -> None:
        wait_for_rule(self.stack, state, 4 * MINUTES)
        if state == "firing":
            (source,) = DATASOURCES["datasources"]
            for place, query in queries().items():
                path = f"/api/datasources/proxy/uid/{source['uid']}/api/v1/query?{urlencode({'query': query})}"
                assert ask(self.stack, path)["data"]["result"], place
        super().alert(state)


def test_pictures_of_a_whole_round_show_the_alert_fire_and_end(stack: Stack, tmp_path: Path) -> None:
    with open_page({"Authorization": f"Basic {LOGIN}"}) as page:
        play(GrafanaStory(stack, tmp_path / "warehouse", page))
