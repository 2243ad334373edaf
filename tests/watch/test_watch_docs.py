"""docs/watcher.md fits the rules and the dashboard, and its examples for Kubernetes are checked."""

import json
import re
from pathlib import Path
from typing import Any, get_args

from delta_watch.config import read_config
from delta_watch.errors import Reason
from delta_watch.once import JSON_FIELDS
from delta_watch.summary import State
from demo.stack import ROOT
from tests.helpers.grafana_files import CONSUMERS

import yaml

DOCS = ROOT / "docs"
PAGE = (DOCS / "watcher.md").read_text()


def test_all_alerts_on_the_watcher_are_on_the_page_with_their_severity() -> None:
    rules = yaml.safe_load((ROOT / "prometheus/rules/watch.yml").read_text())["groups"]
    alerts = [rule for group in rules for rule in group["rules"] if "alert" in rule]
    assert re.findall(r"^\| (Delta\w+) \| (critical|warning) \|", PAGE, re.MULTILINE) == [
        (rule["alert"], rule["labels"]["severity"]) for rule in alerts
    ]


def test_all_alerts_say_what_is_wrong_why_it_matters_and_what_to_do() -> None:
    rules = yaml.safe_load((ROOT / "prometheus/rules/watch.yml").read_text())["groups"]
    for rule in (rule for group in rules for rule in group["rules"] if "alert" in rule):
        assert list(rule["annotations"]) == ["summary", "description", "action"], rule["alert"]
        assert all(text.endswith(".") for text in rule["annotations"].values()), rule["alert"]


def test_configuration_on_the_page_is_valid(tmp_path: Path) -> None:
    block, table = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "unity-token").write_text("token")
    (tmp_path / "table.toml").write_text(table)
    assert list(read_config(tmp_path / "table.toml").tables) == ["orders"]
    (tmp_path / "watch.toml").write_text(block)
    config = read_config(tmp_path / "watch.toml")
    used = {consumer.table for consumer in config.consumers} | {discovery.table for discovery in config.discoveries}
    assert used == set(config.tables)


def test_json_on_the_page_has_the_fields_and_states_that_once_prints() -> None:
    (block,) = re.findall(r"^```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert [tuple(lag) for lag in json.loads(block)["consumers"]] == [JSON_FIELDS]
    states = get_args(State)
    assert set(re.findall("`(.*?)`", PAGE.partition("\n`state` is ")[2])[: len(states)]) == set(states)


def test_all_reasons_are_on_the_page() -> None:
    section = PAGE.partition("\n## Why a lag is unknown\n")[2].partition("\n## ")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == sorted(get_args(Reason))


def test_job_target_and_dashboard_of_the_page_exist() -> None:
    config: dict[str, Any] = yaml.safe_load((ROOT / "prometheus/prometheus.yml").read_text())
    (job,) = [job for job in config["scrape_configs"] if job["job_name"] == "delta-watch"]
    (files,) = job["file_sd_configs"]
    (target,) = [f"prometheus/{file}" for file in files["files"]]
    assert (ROOT / target).is_file()
    assert f"`{target}`" in PAGE
    assert f"within {files['refresh_interval'].removesuffix('s')} seconds" in PAGE
    assert f"**{CONSUMERS['title']}**,\nhttp://localhost:3000/d/{CONSUMERS['uid']}" in PAGE
