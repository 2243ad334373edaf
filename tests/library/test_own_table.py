"""examples/own_table.py and the rules for it in docs/own-table.md."""

import re
import subprocess
import time
from pathlib import Path

from demo.programs import program
from demo.stack import ROOT
from fast_spark.environment import CACHE
from fast_spark.jars import EXCLUDES
from lag_detector.pushgateway import Pushgateway
from tests.helpers import disk_truth as truth
from tests.helpers.workspace import Workspace, wait_until_equal

import pytest
import yaml

SCRAPE, RULES = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "own-table.md").read_text(), re.DOTALL)
CONFIG = yaml.safe_load((ROOT / "prometheus" / "prometheus.yml").read_text())
WRITER, READER = "orders_writer_version", "orders_reader_version_billing"


@pytest.mark.slow
@pytest.mark.launcher
def test_example_from_another_folder_pushes_what_the_rules_need(workspace: Workspace) -> None:
    stack = workspace.stack
    rules = yaml.safe_load(RULES)["groups"][0]["rules"]

    def firing() -> set[str]:
        return {rule["alert"] for rule in rules if stack.query(rule["expr"].replace("> 900", "> 5"))}

    unknown, *of_lag = ["Orders lag unknown", "Orders consumer lag", "Orders consumer late", "Orders consumer silent"]
    assert {rule["alert"] for rule in rules} == {unknown, *of_lag}
    wait_until_equal(firing, {unknown})
    lake = workspace.folder / "lake"
    # The jars that make setup has fetched, without those that Spark has itself. The rest saves time.
    (workspace.folder / "spark-defaults.conf").write_text(f"""
        spark.jars.ivy {CACHE / "ivy"}
        spark.jars.excludes {EXCLUDES}
        spark.databricks.delta.snapshotPartitions 1
        spark.sql.shuffle.partitions 1
        spark.ui.enabled false
        spark.driver.extraJavaOptions -XX:TieredStopAtLevel=1
    """)
    settings = {"LAKE": str(lake), "PYTHONPATH": "", "SPARK_CONF_DIR": str(workspace.folder)}
    with workspace.start("examples/own_table.py", **settings):
        names = (WRITER, "orders_reader_version")
        wait_until_equal(lambda: truth.gauges(stack.pushgateway, versions=names), {WRITER: 0, READER: 0}, limit=120)
        wait_until_equal(firing, set())
    assert {path.name for path in lake.iterdir()} == {"orders", "checkpoints"}
    Pushgateway(stack.pushgateway).push(WRITER, 3, time.time())
    wait_until_equal(firing, set(of_lag))


def test_rules_of_the_page_are_valid(tmp_path: Path) -> None:
    (tmp_path / "orders.yml").write_text(RULES)
    (tmp_path / "prometheus.yml").write_text(SCRAPE)
    subprocess.run([program("promtool"), "check", "config", "prometheus.yml"], cwd=tmp_path, check=True, timeout=60)
    (ours,) = [job for job in CONFIG["scrape_configs"] if job["job_name"] == "pushgateway"]
    assert yaml.safe_load(SCRAPE)["scrape_configs"] == [ours]
