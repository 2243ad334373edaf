"""The steps of the set-up show how long they take."""

import os
import pty
import re
import subprocess
import sys

from demo.stack import ROOT


def elapsed(*command: str, stdout: int = subprocess.PIPE, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tutorial.elapsed", "Waiting", *command],
        cwd=ROOT,
        env={**os.environ, **settings},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )


def test_step_that_succeeds_shows_its_seconds_only() -> None:
    done = elapsed("sh", "-c", "echo noise; echo noise >&2")
    assert re.fullmatch(r"Waiting … \d s\n", done.stdout)
    assert (done.returncode, done.stderr) == (0, "")


def test_step_that_fails_shows_its_output_and_keeps_its_exit_code() -> None:
    done = elapsed("sh", "-c", "echo one; echo two >&2; exit 3")
    assert (done.returncode, done.stderr) == (3, "one\ntwo\n")


def test_step_in_any_locale_succeeds() -> None:
    done = elapsed("printf", "\\200", PYTHONIOENCODING="iso-8859-1")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"Waiting \? \d s\n", done.stdout)


def test_step_on_a_terminal_counts_the_seconds() -> None:
    terminal, end = pty.openpty()
    assert elapsed("sleep", "2.5", stdout=end).returncode == 0
    os.close(end)
    shown = os.read(terminal, 1000).decode()
    os.close(terminal)
    assert re.findall(r"\rWaiting … (\d) s", shown)[:2] == ["1", "2"]
