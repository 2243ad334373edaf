"""examples/long_running_consumer.py as a process: two of them, next to the other scripts."""

import os
import signal
from pathlib import Path

from demo.stack import wait_for
from tests.helpers.disk_truth import times
from tests.helpers.workspace import SessionWorkspace, Workspace, errors, wait_until_equal

import psutil
import pytest

CONSUMER = "examples/long_running_consumer.py"
READER, FRAUD = "visits_reader_version", "visits_reader_version_fraud"


@pytest.mark.slow
def test_two_consumers_next_to_a_writer_push_until_stopped(
    workspace: Workspace, session_workspace: SessionWorkspace, warehouses: Path
) -> None:
    def last_push() -> float:
        (pushed,) = workspace.stack.query(f'push_time_seconds{{job="{READER}"}}')
        return pushed

    workspace.copy(warehouses / "empty")
    with workspace.start(CONSUMER) as own, workspace.start(CONSUMER, VISITS_CONSUMER="fraud") as fraud:
        wait_until_equal(workspace.gauges, {READER: 0, FRAUD: 0}, limit=120)
        session_workspace.succeed("visits_creator_job.py")
        wait_until_equal(workspace.gauges, {"visits_writer_version": 3, READER: 3, FRAUD: 3})
        committed = times(workspace.stack.pushgateway)
        assert committed[FRAUD] == committed["visits_writer_version"]
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
