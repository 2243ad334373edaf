"""Several scripts at once on one table."""

import os
import signal
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.request import Request, urlopen

import visits_creator_job
from demo.stack import wait_for
from lag_detector import gauges
from tests import truth
from tests.conftest import Reader
from tests.servers import serving
from tests.steps import Steps

import pytest
from pyspark.sql import SparkSession


def test_three_writers_and_a_reader(alone: Reader) -> None:
    alone.succeed("create_table.py")
    scripts = ["visits_creator_job.py"] * 3 + ["visits_reader.py"]
    processes = [alone.start(script) for script in scripts]
    try:
        told = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * 4, told
    disk = truth.Disk(alone.warehouse)
    assert disk.last_version() == 9
    assert disk.rows(range(10)) == 27
    assert truth.gauges(alone.stack.pushgateway) == {"visits_writer_version": 9}
    assert told[3][0].count("|visit ") % 3 == 0
    assert alone.succeed("visits_consumer.py").count("|visit ") == 27
    assert truth.gauges(alone.stack.pushgateway)["visits_reader_version"] == 9


def test_a_push_that_is_overtaken_is_followed_by_the_right_one(
    spark: SparkSession, pushgateway_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first writer's push of version 3 arrives after the second one has written and pushed version 6."""
    monkeypatch.setattr(gauges, "TRY_TIMEOUT", 30)
    monkeypatch.setenv("VISITS_WAREHOUSE", str(tmp_path / "warehouse"))
    steps = Steps(spark, tmp_path / "warehouse")
    steps.create()
    steps.write()
    arrived = []

    def pass_on(request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        arrived.append(body)
        if len(arrived) == 1:
            visits_creator_job.append_visits(spark)
            monkeypatch.setenv("PUSHGATEWAY_URL", pushgateway_url)
            visits_creator_job.publish_writer_version(spark, gauges.pushgateway())
        headers = {"Content-Type": request.headers["Content-Type"]}
        with urlopen(Request(pushgateway_url + request.path, body, headers, method="PUT"), timeout=10):
            request.send_response(202)
            request.end_headers()

    with serving(pass_on) as address:
        monkeypatch.setenv("PUSHGATEWAY_URL", f"http://{address}")
        visits_creator_job.publish_writer_version(spark, gauges.pushgateway())
    assert len(arrived) == 2
    assert truth.gauges(pushgateway_url) == {"visits_writer_version": 6}


def test_a_second_consumer_on_the_same_checkpoint(alone: Reader) -> None:
    """The first is held in the middle of its batch while the second one reads and commits it."""
    alone.succeed("create_table.py")
    alone.succeed("visits_creator_job.py")
    disk = truth.Disk(alone.warehouse)
    with alone.start("visits_consumer.py") as first:
        try:
            wait_for("the first batch", lambda: disk.batches("offsets") or None, 120)
            os.killpg(first.pid, signal.SIGSTOP)
            assert disk.batches("commits") == set()
            second = alone.succeed("visits_consumer.py")
            os.killpg(first.pid, signal.SIGCONT)
            _, told = first.communicate(timeout=120)
        finally:
            os.killpg(first.pid, signal.SIGKILL) if first.poll() is None else None
    assert second.endswith(f"visits_reader_version 3 pushed to {alone.stack.pushgateway}\n")
    assert first.returncode == 1
    assert "Error: another consumer works with the same checkpoint" in told.splitlines()[-1]
    assert "\tat " not in told
    assert truth.gauges(alone.stack.pushgateway)["visits_reader_version"] == 3
    assert alone.succeed("visits_consumer.py") == f"visits_reader_version 3 pushed to {alone.stack.pushgateway}\n"
