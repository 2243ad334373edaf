"""The stack is as the alert needs it, and reachable from this machine only."""

import re

from demo.stack import COMPRESSED, ROOT

import yaml

CONFIG = yaml.safe_load((ROOT / "prometheus" / "prometheus.yml").read_text())


def test_pushed_jobs_are_kept_and_the_subquery_has_a_fine_step() -> None:
    assert CONFIG["global"] == {"scrape_interval": "15s", "evaluation_interval": "15s"}
    assert [job["honor_labels"] for job in CONFIG["scrape_configs"]] == [True]


def test_every_compressed_time_stands_in_the_files() -> None:
    files = "".join(file.read_text() for file in (ROOT / "prometheus").rglob("*.yml"))
    assert [time for time in COMPRESSED if time not in files] == []


def test_images_and_ports_are_pinned_and_local() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert {service["image"] for service in services.values()} == {
        "grafana/grafana:12.4.10",
        "prom/prometheus:v3.13.4",
        "prom/pushgateway:v1.11.3",
    }
    for service in services.values():
        assert all(re.fullmatch(r"127\.0\.0\.1:\$\{[A-Z]+_PORT:-\d+\}:\d+", port) for port in service["ports"])
        assert service["healthcheck"]["test"][0] == "CMD"
