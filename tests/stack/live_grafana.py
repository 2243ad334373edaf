"""Query a real Grafana: make test-grafana. NOT YET RUN ANYWHERE: it needs a Docker engine with the compose plugin.

Starts the compose stack on free ports with the ready-made alert, runs the scripts, and queries Grafana's HTTP API.
Written from its documentation (health, data source proxy, dashboard by uid, Prometheus-compatible rules). Once you have
run it, remove the note above.
"""

import base64
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from demo.compose import PORTS
from demo.stack import ALERT, REAL, Stack, wait_for
from tests.helpers.docker import stack_in_docker
from tests.helpers.grafana_files import ALERTING, DASHBOARDS, DATASOURCES, queries
from tests.helpers.workspace import Workspace

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


def test_alert_in_a_whole_round_fires_and_ends(stack: Stack, workspace: Workspace) -> None:
    for script in ("create_table.py", "visits_creator_job.py", "visits_consumer.py"):
        workspace.succeed(script)
    wait_for_rule(stack, "inactive", 3 * MINUTES)
    workspace.succeed("visits_creator_job.py")
    wait_for_rule(stack, "pending", 2 * MINUTES)
    wait_for_rule(stack, "firing", 4 * MINUTES)
    check_every_query_of_the_dashboard(stack)
    workspace.succeed("visits_consumer.py")
    wait_for_rule(stack, "inactive", 3 * MINUTES)


def check_every_query_of_the_dashboard(stack: Stack) -> None:
    (source,) = DATASOURCES["datasources"]
    for place, query in queries().items():
        path = f"/api/datasources/proxy/uid/{source['uid']}/api/v1/query?{urlencode({'query': query})}"
        assert ask(stack, path)["data"]["result"], place
