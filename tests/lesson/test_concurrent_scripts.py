"""Several scripts at once on one table."""

import os
import signal
from pathlib import Path

from demo.stack import wait_for
from tests.helpers.workspace import SessionWorkspace, Workspace


def test_two_writers_and_a_reader_at_once_lose_nothing(
    workspace: Workspace, session_workspace: SessionWorkspace, warehouses: Path
) -> None:
    workspace.copy(warehouses / "empty")
    disk = workspace.disk
    with workspace.start("visits_creator_job.py") as one, workspace.start("visits_creator_job.py") as other:
        wait_for("the first commit", lambda: disk.last_version() or None, 120)
        read_meanwhile = session_workspace.succeed("visits_reader.py").count("|visit ")
        for writer in (one, other):
            _, err = writer.communicate(timeout=300)
            assert writer.returncode == 0, err
    assert disk.last_version() == 6
    assert disk.rows(range(7)) == 18
    assert workspace.gauges() == {"visits_writer_version": 6}
    assert read_meanwhile in range(3, 19, 3)
    assert session_workspace.succeed("visits_consumer.py").count("|visit ") == 18
    assert workspace.gauges() == {"visits_writer_version": 6, "visits_reader_version": 6}
    assert list(workspace.working_directory.iterdir()) == []


def test_consumer_when_another_uses_its_checkpoint_stops(
    workspace: Workspace, session_workspace: SessionWorkspace, warehouses: Path
) -> None:
    """The first consumer is suspended in the middle of its batch while the second one reads and commits it."""
    workspace.copy(warehouses / "at_3")
    pushed = workspace.pushed("visits_reader_version", 3)
    with workspace.start("visits_consumer.py") as first:
        wait_for("the first batch", lambda: workspace.disk.batches("offsets") or None, 120)
        os.killpg(first.pid, signal.SIGSTOP)
        assert workspace.disk.batches("commits") == set()
        assert session_workspace.succeed("visits_consumer.py").endswith(pushed)
        os.killpg(first.pid, signal.SIGCONT)
        _, stderr = first.communicate(timeout=120)
    assert first.returncode == 1
    assert "Error: another consumer uses the same checkpoint" in stderr.splitlines()[-1]
    assert "\tat " not in stderr
    assert workspace.gauges() == {"visits_reader_version": 3}
    assert session_workspace.succeed("visits_consumer.py") == pushed
