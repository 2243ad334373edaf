"""examples/own_table.py and the rules for it in docs/own-table.md."""

import re
import subprocess
import time
from pathlib import Path

from demo.programs import program
from demo.stack import ROOT, wait_for
from lag_detector.pushgateway import Pushgateway
from tests import truth
from tests.workspace import Workspace, wait_until_equal

import pytest
import yaml

(RULES,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "own-table.md").read_text(), re.DOTALL)
WRITER, READER = "orders_writer_version", "orders_reader_version_billing"


@pytest.mark.slow
def test_example_from_another_folder_pushes_what_the_rules_need(workspace: Workspace) -> None:
    stack = workspace.stack
    rules = yaml.safe_load(RULES)["groups"][0]["rules"]

    def firing() -> set[str]:
        return {rule["alert"] for rule in rules if stack.query(rule["expr"].replace("> 900", "> 5"))}

    def pushed() -> dict[str, float]:
        names = (WRITER, "orders_reader_version")
        samples = truth.samples(stack.pushgateway)
        return {series["job"]: value for series, value in samples if series["__name__"] in names}

    lake = workspace.folder / "lake"
    with workspace.start("examples/own_table.py", LAKE=str(lake), PYTHONPATH="") as billing:
        try:
            wait_until_equal(pushed, {WRITER: 0, READER: 0}, limit=120)
            both = f'{{job=~"{WRITER}|{READER}"}} == 0'
            wait_for("both in Prometheus", lambda: len(stack.query(both)) > 1 or None, 30)
            assert firing() == set()
        finally:
            billing.kill()
    assert {path.name for path in lake.iterdir()} == {"orders", "checkpoints"}
    Pushgateway(stack.pushgateway).push(WRITER, 3, time.time())
    wait_until_equal(firing, {rule["alert"] for rule in rules})


def test_rules_of_the_page_are_valid(tmp_path: Path) -> None:
    (tmp_path / "orders.yml").write_text(RULES)
    subprocess.run([program("promtool"), "check", "rules", "orders.yml"], cwd=tmp_path, check=True, timeout=60)
