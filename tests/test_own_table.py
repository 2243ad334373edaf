"""The README's example for the reader's own table, as it stands there: the script and the rules in Prometheus."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from demo.programs import program
from demo.stack import ROOT, Stack, wait_for
from lag_detector.gauges import publish, pushgateway
from tests import truth
from tests.conftest import becomes

import pytest
import yaml

SECTION = (ROOT / "README.md").read_text().partition("## Use it on your own table")[2].partition("\n## ")[0]
((SCRIPT,), (RULES,)) = (re.findall(rf"```{kind}\n(.*?)```", SECTION, re.DOTALL) for kind in ("python", "yaml"))
WRITER, READER = "orders_writer_version", "orders_reader_version_billing"


def test_the_example(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSHGATEWAY_URL", stack.pushgateway)
    rules = yaml.safe_load(RULES)["groups"][0]["rules"]

    def held() -> set[str]:
        return {rule["alert"] for rule in rules if stack.query(rule["expr"].replace("> 900", "> 5"))}

    def published() -> dict[str, float]:
        names = (WRITER, "orders_reader_version")
        return {
            series["job"]: value for series, value in truth.samples(stack.pushgateway) if series["__name__"] in names
        }

    shutil.copytree(ROOT / "lag_detector", tmp_path / "lag_detector")
    (tmp_path / ".cache").symlink_to(ROOT / ".cache")
    (tmp_path / "billing.py").write_text(SCRIPT.replace("/tmp/lake", str(tmp_path / "lake")))
    command = [sys.executable, "billing.py"]
    with subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": ""}) as billing:
        try:
            becomes(published, {WRITER: 0, READER: 0}, limit=120)
            wait_for(
                "both in Prometheus", lambda: len(stack.query(f'{{job=~"{WRITER}|{READER}"}} == 0')) > 1 or None, 30
            )
            assert held() == set()
        finally:
            billing.kill()
    publish(pushgateway(), WRITER, 3, time.time())
    becomes(held, {rule["alert"] for rule in rules})


def test_the_rules_are_sound(tmp_path: Path) -> None:
    (tmp_path / "orders.yml").write_text(RULES)
    subprocess.run([program("promtool"), "check", "rules", "orders.yml"], cwd=tmp_path, check=True, timeout=60)


def test_it_is_short() -> None:
    assert len(SCRIPT.splitlines()) < 25
