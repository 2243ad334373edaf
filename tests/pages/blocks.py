"""Run the commands of README and docs, and write their outputs and the excerpts of the code into the pages.

`make readme` does that; tests/pages/test_pages.py compares. A `bash` block is run; the `text` block after it is its
output, and "…" stands for lines that are left out. The stack is the local one: lines with `docker compose` do
nothing, and its address is replaced by Docker's. The long-running consumer runs in a terminal of its own until it has
printed what the page shows, then gets Ctrl-C. Blocks that need Docker or a cluster, or would run all of this again,
are marked `shell`.
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Generator, Iterator
from itertools import chain, takewhile
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

from tutorial.script import run

from demo.stack import ROOT, pushgateway, wait_for
from lag_detector.errors import LagDetectorError

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
COPY = "lag-detector"
DOCKERS_PUSHGATEWAY = "http://localhost:9091"
RUNS_UNTIL_CTRL_C = "examples/long_running_consumer.py"
COMMANDS = re.compile(r"^```(?:bash\n(?P<run>.*?)|text\n(?P<shown>.*?))^```", re.S | re.M)
# A block such as "python create_table.py": a line of that file, and what is indented below it.
EXCERPT = re.compile(r"^```(?:python|yaml) (?P<file>\S+)\n(?P<shown>.*?)^```", re.S | re.M)
# The seconds that an unread commit is old, in the watcher's table: the fifth column.
AGE = re.compile(r" +\d+(?=( +[\d,]+){3}  behind$)", re.M)
OF_MAKE = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
LIMIT = 300.0


class Shown(NamedTuple):
    """What a page shows, where it is in the page's text, and what it should be."""

    page: Path
    place: slice
    shown: str
    expected: str


class Terminal:
    """A shell that runs a block in a copy of the repository."""

    def __init__(self, block: str, copy: Path, address: str, log: Path) -> None:
        self.block, self.address = block, address
        self.out, self.err = log.with_suffix(".out"), log.with_suffix(".err")
        # As after `source .venv/bin/activate`, which each terminal would need, and outside `make test`.
        path = f"{copy / '.venv' / 'bin'}:{os.environ['PATH']}"
        environment = {name: value for name, value in os.environ.items() if name not in OF_MAKE}
        with self.out.open("w") as out, self.err.open("w") as err:
            self.shell = subprocess.Popen(
                ["bash", "-e", "-c", re.sub(r"^docker compose .*$", ":", block, flags=re.M)],
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
            if code := self.shell.wait(LIMIT):
                raise LagDetectorError(f"the block {self.block!r} ended with {code}: {self.errors()}")
        finally:
            self.kill()
        return self.printed()

    def stop(self, shown: str) -> str:
        """Press Ctrl-C once the last line of `shown` is on standard error, and return what the block printed."""
        last = shown.splitlines()[-1]
        wait_for(f"{last} in {self.block!r}", lambda: last in self.errors(), LIMIT)
        os.killpg(self.shell.pid, signal.SIGINT)
        return self.end()

    def kill(self) -> None:
        if self.shell.poll() is None:
            os.killpg(self.shell.pid, signal.SIGKILL)
            self.shell.wait(10)


def outputs(folder: Path) -> Generator[list[Shown], None, None]:
    """Run the commands in a copy of the repository in this folder, and yield the outputs page by page.

    The README comes first, and each other page continues where the README ends.
    """
    copy = folder / COPY
    shutil.copytree(
        ROOT, copy, ignore=shutil.ignore_patterns(".git", ".cache", ".stack", ".venv", "warehouse", "__pycache__")
    )
    for made_by_setup in (".venv", ".cache"):
        (copy / made_by_setup).symlink_to(ROOT / made_by_setup)
    warehouse, after_readme = copy / "warehouse", folder / "after the README"
    with pushgateway(folder) as address:
        yield list(_outputs_of_page(README, copy, address))
        warehouse.rename(after_readme)
        for page in PAGES[1:]:
            shutil.copytree(after_readme, warehouse)
            yield list(_outputs_of_page(page, copy, address))
            shutil.rmtree(warehouse)


def _outputs_of_page(page: Path, copy: Path, address: str) -> Iterator[Shown]:
    terminals: list[Terminal] = []
    try:
        for found in COMMANDS.finditer(page.read_text()):
            if found["run"]:
                terminals.append(Terminal(found["run"], copy, address, copy.parent / f"{page.stem}-{found.start()}"))
                if RUNS_UNTIL_CTRL_C not in found["run"]:
                    terminals[-1].end()
                continue
            # The page shows the output of the last block first, then that of the one still running.
            terminal, shown = terminals.pop(), found["shown"]
            printed = terminal.stop(shown) if terminal.shell.poll() is None else terminal.printed()
            yield Shown(page, slice(*found.span("shown")), shown, _shortened(printed, shown))
    finally:
        for terminal in terminals:
            terminal.kill()


def _shortened(printed: str, shown: str) -> str:
    """Leave out the lines for which `shown` has a "…"."""
    lines, as_shown = printed.rstrip().splitlines(), shown.splitlines()
    if "…" in as_shown:
        before = as_shown.index("…")
        after = len(as_shown) - before - 1
        lines[before : len(lines) - after] = ["…"]
    return "\n".join(lines) + "\n"


def excerpts() -> Iterator[Shown]:
    """Yield each excerpt of the code. A ValueError means that a file does not have an excerpt's first line."""
    for page in PAGES:
        for found in EXCERPT.finditer(page.read_text()):
            lines = (ROOT / found["file"]).read_text().splitlines()
            begin = [line.strip() for line in lines].index(found["shown"].splitlines()[0].strip())
            indent = len(lines[begin]) - len(lines[begin].lstrip())
            deeper = re.compile(f" {{{indent + 1}}}|$")
            below = takewhile(deeper.match, lines[begin + 1 :])
            expected = dedent("\n".join([lines[begin], *below])).rstrip() + "\n"
            yield Shown(page, slice(*found.span("shown")), found["shown"], expected)


def main() -> None:
    """Write what the commands print, and the code's excerpts, into the pages."""
    with tempfile.TemporaryDirectory() as folder:
        found = [*chain.from_iterable(outputs(Path(folder))), *excerpts()]
    for page in PAGES:
        text = page.read_text()
        for block in sorted((b for b in found if b.page == page), key=lambda b: b.place.start, reverse=True):
            text = text[: block.place.start] + block.expected + text[block.place.stop :]
        page.write_text(text)
    changed = sum(block.shown != block.expected for block in found)
    print(f"{changed} of {len(found)} outputs and excerpts were changed.")


if __name__ == "__main__":
    run(main)
