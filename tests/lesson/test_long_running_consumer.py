"""examples/long_running_consumer.py as a process: two of them, next to the other scripts."""

import os
import signal

from demo.stack import wait_for
from tests.helpers import disk_truth as truth
from tests.helpers.lesson_steps import Warehouses
from tests.helpers.workspace import SessionWorkspace, Workspace, errors, wait_until_equal

import psutil
import pytest

CONSUMER = "examples/long_running_consumer.py"
READER, FRAUD = "visits_reader_version", "visits_reader_version_fraud"


@pytest.mark.slow
def test_two_consumers_next_to_a_writer_push_until_stopped(
    workspace: Workspace, session_workspace: SessionWorkspace, warehouses: Warehouses
) -> None:
    gateway = workspace.stack.pushgateway

    def read() -> tuple[float | None, float | None]:
        gauges = truth.gauges(gateway)
        return gauges.get(READER), gauges.get(FRAUD)

    def last_push() -> float:
        (pushed,) = workspace.stack.query(f'push_time_seconds{{job="{READER}"}}')
        return pushed

    workspace.copy(warehouses.empty)
    own = workspace.start(CONSUMER)
    fraud = workspace.start(CONSUMER, VISITS_CONSUMER="fraud")
    with own, fraud:
        try:
            wait_until_equal(read, (0, 0), limit=120)
            session_workspace.succeed("visits_creator_job.py")
            wait_until_equal(read, (3, 3))
            assert truth.times(gateway)[FRAUD] == truth.times(gateway)["visits_writer_version"]
            pushed = wait_for("a scrape", lambda: last_push() or None, 30)
            wait_for("a push although nothing is new", lambda: last_push() > pushed or None, 60)
            (java,) = [child.cmdline() for child in psutil.Process(own.pid).children() if "java" in child.name()]
            assert [option for option in java if "TieredStopAtLevel" in option or "codegen" in option] == []
            own.terminate()
            os.killpg(fraud.pid, signal.SIGINT)  # as a terminal does: Java gets it too
            outputs = [process.communicate(timeout=60) for process in (own, fraud)]
        finally:
            own.kill()
            fraud.kill()
    assert [process.returncode for process in (own, fraud)] == [0, 0], outputs
    for (out, err), group in zip(outputs, (READER, FRAUD), strict=True):
        assert out.count("|visit ") == 9
        assert out.endswith(f"{group} 3 pushed to {gateway}\n")
        # Each new version once, whatever batches the three commits came in.
        lines = errors(err)
        assert lines[0] == f"{group} 0 pushed to {gateway}"
        assert lines[-1] == f"{group} 3 pushed to {gateway}"
        assert len(lines) == len(set(lines))
    assert "|visit " not in session_workspace.succeed("visits_consumer.py")


def test_consumer_with_unknown_argument_refuses_it(workspace: Workspace) -> None:
    error = workspace.fail(f"{CONSUMER} --folow")
    assert "unrecognized arguments: --folow; long_running_consumer.py --help shows the usage" in error
