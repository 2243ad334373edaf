"""Run the README's `bash` blocks and write their output into it.

`make readme` does that; tests/test_readme.py compares. The stack is the local one, so lines with `docker compose` do
nothing, and its address is replaced by Docker's. The long-running consumer runs in a terminal of its own until it has
printed what the README shows, and then gets Ctrl-C. Blocks that need Docker or a cluster, or would run all of this
again, are marked `shell`.
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tutorial.jars import JARS
from tutorial.script import run

from demo.stack import ROOT, pushgateway, wait_for
from lag_detector.errors import LagDetectorError

README = ROOT / "README.md"
COPY = "lag-detector"
DOCKERS_PUSHGATEWAY = "http://localhost:9091"
RUNS_UNTIL_CTRL_C = "examples/long_running_consumer.py"
# A block to run, or a sentence that starts with "You should see" and the block with the output.
BLOCK = re.compile(
    r"^```bash\n(?P<run>.*?)^```|^(?P<sentence>You should see[^\n]*:)\n\n```\n(?P<shown>.*?)^```", re.S | re.M
)
# The seconds that an unread commit is old, in the watcher's table: the fifth column.
AGE = re.compile(r" +\d+(?=( +[\d,]+){3}  behind$)", re.M)
LIMIT = 300.0


class Shown(NamedTuple):
    """An output in the README, where it is in the text, and what was printed instead."""

    place: slice
    shown: str
    printed: str


class Terminal:
    """A shell that runs a block in a copy of the repository."""

    def __init__(self, block: str, copy: Path, address: str, log: Path) -> None:
        self.block = block
        self.address = address
        self.out, self.err = log.with_suffix(".out"), log.with_suffix(".err")
        commands = re.sub(r"^docker compose .*$", ":", block, flags=re.M)
        # As after `source .venv/bin/activate`, which each terminal would need, and outside `make test`.
        path = f"{copy / '.venv' / 'bin'}:{os.environ['PATH']}"
        environment = {
            name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
        }
        with self.out.open("w") as out, self.err.open("w") as err:
            self.shell = subprocess.Popen(
                ["bash", "-e", "-c", commands],
                cwd=copy,
                env={**environment, "PATH": path, "PUSHGATEWAY_URL": address},
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def printed(self) -> str:
        text = self.out.read_text().replace(self.address, DOCKERS_PUSHGATEWAY)
        text = re.sub(r"ready on Java \d+", "ready on Java 17", text)  # whichever Java this machine has
        return re.sub(AGE, f"{4:>9}", text)

    def errors(self) -> str:
        return self.err.read_text().replace(self.address, DOCKERS_PUSHGATEWAY)

    def end(self) -> str:
        """Wait until the block has ended, and return what it printed."""
        try:
            code = self.shell.wait(LIMIT)
        finally:
            self.kill()
        if code:
            raise LagDetectorError(f"the README's block {self.block!r} ended with {code}: {self.errors()}")
        return self.printed()

    def stop(self, shown: str) -> str:
        """Press Ctrl-C once the last line of `shown` is on standard error, and return what the block printed."""
        last = shown.splitlines()[-1]
        try:
            wait_for(last, lambda: last in self.errors() or None, 60)
            os.killpg(self.shell.pid, signal.SIGINT)
        except LagDetectorError:
            self.kill()
        return self.end()

    def kill(self) -> None:
        if self.shell.poll() is None:
            os.killpg(self.shell.pid, signal.SIGKILL)
            self.shell.wait(10)


def run_blocks(folder: Path) -> Iterator[Shown]:
    """Run all blocks in a copy of the repository, and yield each output in the README with what was printed.

    Args:
        folder: the folder for the copy and for the Pushgateway's file.
    """
    copy = folder / COPY
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".cache", ".venv", "warehouse", "__pycache__"))
    (copy / ".venv").symlink_to(ROOT / ".venv")
    shutil.copytree(JARS, copy / ".cache" / JARS.name)
    text = README.read_text()
    terminals: list[Terminal] = []
    with pushgateway(folder) as address:
        try:
            for found in BLOCK.finditer(text):
                if found["run"]:
                    log = folder / f"terminal-{found.start()}"
                    terminals.append(Terminal(found["run"], copy, address, log))
                    if RUNS_UNTIL_CTRL_C not in found["run"]:
                        terminals[-1].end()
                    continue
                # The README shows the output of the last block first, then that of the one still running.
                terminal = terminals.pop()
                printed = terminal.stop(found["shown"]) if terminal.shell.poll() is None else terminal.printed()
                if "last:" in found["sentence"]:
                    lines = len(found["shown"].splitlines())
                    printed = "\n".join(printed.splitlines()[-lines:]) + "\n"
                yield Shown(slice(*found.span("shown")), found["shown"], printed.rstrip("\n") + "\n")
        finally:
            for terminal in terminals:
                terminal.kill()


def main() -> None:
    """Write what the blocks print into the README."""
    with tempfile.TemporaryDirectory() as folder:
        blocks = list(run_blocks(Path(folder)))
    text = README.read_text()
    for block in reversed(blocks):
        text = text[: block.place.start] + block.printed + text[block.place.stop :]
    changed = sum(block.shown != block.printed for block in blocks)
    README.write_text(text)
    print(f"{changed} of {len(blocks)} outputs in the README were changed.")


if __name__ == "__main__":
    run(main)
