"""Several scripts at once on one table."""

import os
import signal
from pathlib import Path

from demo.stack import wait_for
from tests.helpers.disk_truth import gauges
from tests.helpers.workspace import SessionWorkspace, Workspace, errors, wait_until_equal

import psutil
import pytest

LONG_RUNNING = "examples/long_running_consumer.py"
WRITER, READER, FRAUD = "visits_writer_version", "visits_reader_version", "visits_reader_version_fraud"


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
    assert workspace.gauges() == {WRITER: 6}
    assert read_meanwhile in range(3, 19, 3)
    assert session_workspace.succeed("visits_consumer.py").count("|visit ") == 18
    assert workspace.gauges() == {WRITER: 6, READER: 6}
    assert list(workspace.working_directory.iterdir()) == []


def test_consumer_when_another_uses_its_checkpoint_stops(
    workspace: Workspace, session_workspace: SessionWorkspace, warehouses: Path
) -> None:
    """The first consumer is suspended in the middle of its batch while the second one reads and commits it."""
    workspace.copy(warehouses / "at_3")
    pushed = workspace.pushed(READER, 3)
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
    assert workspace.gauges() == {READER: 3}
    assert session_workspace.succeed("visits_consumer.py") == pushed


@pytest.mark.slow
def test_two_consumers_next_to_a_writer_push_until_stopped(
    workspace: Workspace, session_workspace: SessionWorkspace, warehouses: Path
) -> None:
    def last_push() -> float:
        (pushed,) = workspace.stack.query(f'push_time_seconds{{job="{READER}"}}')
        return pushed

    workspace.copy(warehouses / "empty")
    with workspace.start(LONG_RUNNING) as own, workspace.start(LONG_RUNNING, VISITS_CONSUMER="fraud") as fraud:
        wait_until_equal(workspace.gauges, {READER: 0, FRAUD: 0}, limit=120)
        session_workspace.succeed("visits_creator_job.py")
        wait_until_equal(workspace.gauges, {WRITER: 3, READER: 3, FRAUD: 3})
        committed = gauges(workspace.stack.pushgateway, "_timestamp_seconds")
        assert committed[FRAUD] == committed[WRITER]
        pushed = wait_for("a scrape", lambda: last_push() or None, 30)
        wait_for("a push although nothing is new", lambda: last_push() > pushed or None, 60)
        (java,) = [child.cmdline() for child in psutil.Process(own.pid).children() if "java" in child.name()]
        assert [option for option in java if "TieredStopAtLevel" in option or "codegen" in option] == []
        own.terminate()
        os.killpg(fraud.pid, signal.SIGINT)  # as a terminal does: Java gets it too
        for process, group in ((own, READER), (fraud, FRAUD)):
            out, err = process.communicate(timeout=60)
            assert process.returncode == 0, err
            assert out.count("|visit ") == 9
            assert out.endswith(workspace.pushed(group, 3))
            # Each new version once, whatever batches the three commits came in.
            lines = errors(err)
            assert (lines[0] + "\n", lines[-1] + "\n") == (workspace.pushed(group, 0), workspace.pushed(group, 3))
            assert len(lines) == len(set(lines))
    assert "|visit " not in session_workspace.succeed("visits_consumer.py")
