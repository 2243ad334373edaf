"""The stack fits the alert, can only be reached from this machine, and its rules fire when they should."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tutorial.visits import READER_VERSION, WRITER_VERSION

from demo.stack import COMPRESSED, ROOT, Stack, local_stack
from lag_detector.pushgateway import Pushgateway
from tests.helpers.workspace import wait_until_equal

import psutil
import pytest
import yaml

GROUPS = yaml.safe_load((ROOT / "prometheus" / "rules" / "visits.yml").read_text())["groups"]
ALERTS = [rule for group in GROUPS for rule in group["rules"] if "alert" in rule]
CONFIG = yaml.safe_load((ROOT / "prometheus" / "prometheus.yml").read_text())


def test_configuration_keeps_pushed_jobs_and_has_a_fine_step() -> None:
    assert CONFIG["global"] == {"scrape_interval": "15s", "evaluation_interval": "15s"}
    assert [job["job_name"] for job in CONFIG["scrape_configs"] if job.get("honor_labels")] == ["pushgateway"]


def test_compressed_times_are_all_in_the_files() -> None:
    files = "".join(file.read_text() for file in (ROOT / "prometheus").rglob("*.yml"))
    assert [time for time in COMPRESSED if time not in files] == []


def test_images_are_pinned_and_ports_are_local() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert {service["image"] for service in services.values()} == {
        "grafana/grafana:12.4.10",
        "prom/prometheus:v3.13.4",
        "prom/pushgateway:v1.11.3",
    }
    for service in services.values():
        assert all(re.fullmatch(r"127\.0\.0\.1:\$\{[A-Z]+_PORT:-(\d+)\}:\1", port) for port in service["ports"])
        assert service["healthcheck"]["test"][0] == "CMD"


def test_rules_are_listed_in_the_docs() -> None:
    listed = re.findall(r"^\| (Visits .+?) \|", (ROOT / "docs" / "alerting.md").read_text(), re.MULTILINE)
    assert listed == [rule["alert"] for rule in ALERTS]


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """A stack for one test, which kills its Pushgateway."""
    with local_stack(tmp_path, COMPRESSED) as running:
        yield running


def test_rules_when_their_condition_holds_find_it(stack: Stack, tmp_path: Path) -> None:
    """On a real Prometheus and Pushgateway, without the waits, which promtool tests."""
    gateway = Pushgateway(stack.pushgateway)

    def wait_for_conditions(*expected: str, silence: int = 3600) -> None:
        conditions = {rule["alert"]: rule["expr"].replace("> 3600", f"> {silence}") for rule in ALERTS}
        wait_until_equal(lambda: {alert for alert in conditions if stack.query(conditions[alert])}, set(expected))

    long_ago, now = time.time() - 4000, time.time()
    wait_for_conditions("Visits lag unknown")
    gateway.push(WRITER_VERSION, 9, long_ago)
    wait_for_conditions("Visits lag unknown", "Visits consumer never ran")
    gateway.push(READER_VERSION, 9, long_ago)
    wait_for_conditions()
    wait_for_conditions("Visits writer silent", "Visits consumer silent", silence=1)
    gateway.push(WRITER_VERSION, 12, now)
    wait_for_conditions("Visits consumer lag", "Visits consumer late")
    with_timestamp = f"{READER_VERSION} 12 1\n".encode()
    rejected = Request(f"{stack.pushgateway}/metrics/job/{READER_VERSION}", with_timestamp, method="PUT")
    with pytest.raises(HTTPError, match="400"):
        urlopen(rejected, timeout=10)
    wait_for_conditions("Visits consumer lag", "Visits consumer late", "Visits push rejected")
    gateway.push(READER_VERSION, 12, now)
    wait_for_conditions()
    option = f"--persistence.file={tmp_path / 'gauges'}"
    (process,) = [each for each in psutil.process_iter(["cmdline"]) if option in (each.info["cmdline"] or ())]
    process.kill()
    wait_for_conditions("Visits Pushgateway down")
