"""Several scripts at once on one table."""

import os
import signal
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.request import Request, urlopen

from tutorial.visits import TABLE, WRITER_VERSION

import visits_creator_job
from demo.stack import wait_for
from lag_detector import Pushgateway, last_commit, pushgateway
from tests.helpers import disk_truth as truth
from tests.helpers.http_servers import serve
from tests.helpers.lesson_steps import Steps, Warehouses
from tests.helpers.workspace import SessionWorkspace, Workspace

import pytest
from pyspark.sql import SparkSession


def test_two_writers_and_a_reader_at_once_lose_nothing(
    workspace: Workspace, session_workspace: SessionWorkspace, warehouses: Warehouses
) -> None:
    workspace.copy(warehouses.empty)
    disk = truth.Disk(workspace.warehouse)
    writers = [workspace.start("visits_creator_job.py") for _ in range(2)]
    try:
        wait_for("the first commit", lambda: disk.last_version() or None, 120)
        read_meanwhile = session_workspace.succeed("visits_reader.py").count("|visit ")
        outputs = [writer.communicate(timeout=300) for writer in writers]
    finally:
        for writer in writers:
            writer.kill()
    assert [writer.returncode for writer in writers] == [0, 0], outputs
    assert disk.last_version() == 6
    assert disk.rows(range(7)) == 18
    assert truth.gauges(workspace.stack.pushgateway) == {"visits_writer_version": 6}
    assert read_meanwhile in range(3, 19, 3)
    assert session_workspace.succeed("visits_consumer.py").count("|visit ") == 18
    assert truth.gauges(workspace.stack.pushgateway)["visits_reader_version"] == 6
    assert list(workspace.working_directory.iterdir()) == []


def test_push_latest_when_overtaken_pushes_again(
    spark: SparkSession, pushgateway_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first writer's push of version 3 arrives after the second writer has pushed version 6."""
    monkeypatch.setattr(pushgateway, "ATTEMPT_TIMEOUT", 30)
    monkeypatch.setenv("VISITS_WAREHOUSE", str(tmp_path / "warehouse"))
    steps = Steps(spark, tmp_path / "warehouse")
    steps.create()
    steps.write()
    arrived = []

    def push(url: str) -> int:
        return Pushgateway(url).push_latest(WRITER_VERSION, lambda: last_commit(spark, TABLE))

    def forward(request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        arrived.append(body)
        if len(arrived) == 1:
            visits_creator_job.append_visits(spark)
            push(pushgateway_url)
        headers = {"Content-Type": request.headers["Content-Type"]}
        with urlopen(Request(pushgateway_url + request.path, body, headers, method="PUT"), timeout=10):
            request.send_response(202)
            request.end_headers()

    with serve(forward) as address:
        assert push(f"http://{address}") == 6
    assert len(arrived) == 2
    assert truth.gauges(pushgateway_url) == {"visits_writer_version": 6}


def test_consumer_when_another_uses_its_checkpoint_stops(
    workspace: Workspace, session_workspace: SessionWorkspace, warehouses: Warehouses
) -> None:
    """The first consumer is suspended in the middle of its batch while the second one reads and commits it."""
    workspace.copy(warehouses.at_3)
    disk = truth.Disk(workspace.warehouse)
    with workspace.start("visits_consumer.py") as first:
        try:
            wait_for("the first batch", lambda: disk.batches("offsets") or None, 120)
            os.killpg(first.pid, signal.SIGSTOP)
            assert disk.batches("commits") == set()
            second = session_workspace.succeed("visits_consumer.py")
            os.killpg(first.pid, signal.SIGCONT)
            _, stderr = first.communicate(timeout=120)
        finally:
            os.killpg(first.pid, signal.SIGKILL) if first.poll() is None else None
    assert second.endswith(f"visits_reader_version 3 pushed to {workspace.stack.pushgateway}\n")
    assert first.returncode == 1
    assert "Error: another consumer uses the same checkpoint" in stderr.splitlines()[-1]
    assert "\tat " not in stderr
    assert truth.gauges(workspace.stack.pushgateway)["visits_reader_version"] == 3
    third = session_workspace.succeed("visits_consumer.py")
    assert third == f"visits_reader_version 3 pushed to {workspace.stack.pushgateway}\n"
