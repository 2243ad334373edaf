"""Play the tutorial in the terminal: the four scripts, the gauges, the lag and the alert.

Usage: make demo, or make demo TIMING=real for the tutorial's own times (under 7 minutes). Docker runs Prometheus and
Pushgateway if it can, else programs of this machine do; STACK=docker or STACK=local chooses.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tutorial.script import run
from tutorial.visits import READER_VERSION, WRITER_VERSION

from delta_watch.summary import running_seconds
from delta_watch.watcher import Consumer, ConsumerState, Watcher
from demo.compose import any_stack
from demo.stack import COMPRESSED, LAG, REAL, ROOT, Stack, last_line, wait_for
from lag_detector.errors import LagDetectorError

QUERIES = (WRITER_VERSION, READER_VERSION, LAG)
# Prometheus 3 does not know the state before it has evaluated the rule once.
STATES = {"unknown": "-", "inactive": "Normal", "pending": "Pending", "firing": "Firing"}
SCRIPT_LIMIT = 180.0
ALERT_LIMIT = 300.0

T = TypeVar("T")


class Story:
    """One run of the tutorial, and what Prometheus said after each step."""

    def __init__(self, stack: Stack, warehouse: Path) -> None:
        self.stack = stack
        self.environment = {**os.environ, "PUSHGATEWAY_URL": stack.pushgateway, "VISITS_WAREHOUSE": str(warehouse)}
        consumer = Consumer("visits_consumer", "visits", f"{warehouse}/checkpoints/visits_consumer")
        self.watcher = Watcher({"visits": f"{warehouse}/visits"}, [consumer])
        self.begin = time.monotonic()
        self.seen: list[str] = []

    def script(self, name: str, summary: Callable[[str], str], kill_when: Callable[[], bool] | None = None) -> None:
        """Run one of the four scripts to its end, or kill it at that moment. Print a summary of its output."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            process = subprocess.Popen([sys.executable, ROOT / name], env=self.environment, stdout=out, stderr=err)

            def over() -> bool:
                return process.poll() is not None or (kill_when is not None and kill_when())

            def result(_: bool) -> str:
                out.seek(0)
                err.seek(0)
                if process.poll() != (None if kill_when else 0):
                    reason = (
                        last_line(err.read()).rstrip(".") if process.poll() else "it ended before it could be killed"
                    )
                    raise LagDetectorError(f"{name} failed: {reason}")
                return summary(out.read())

            try:
                timed(f"python {name}", over, SCRIPT_LIMIT, result)
            finally:
                process.kill()  # Java ends with it
                process.wait()

    def batch_runs(self) -> bool:
        """Return whether the consumer is in the middle of a batch."""
        progress = self.look().progress
        return progress is not None and progress.is_running

    def look(self) -> ConsumerState:
        """Return what the watcher finds in the files of the table and of the checkpoint."""
        self.watcher.run_round()
        ((consumer,),) = [table.consumers for table in self.watcher.states]
        return consumer

    def gauges(self, what: str, writer: float, reader: float | None) -> None:
        """Wait until Prometheus shows these versions and their difference."""
        expected = [[writer], [], []] if reader is None else [[writer], [reader], [writer - reader]]

        def shown() -> bool:
            return [self.stack.query(query) for query in QUERIES] == expected

        timed("Prometheus scrapes", shown, 60, lambda _: f"lag {writer - reader:.0f}" if reader else "no consumer yet")
        self.note(what)

    def alert(self, state: str) -> None:
        """Wait until the alert is in this state."""
        timed("the alert", lambda: self.stack.alert_state() == state, ALERT_LIMIT, lambda _: STATES[state])
        self.note(f"alert {STATES[state]}")

    def note(self, what: str) -> None:
        """Note what Prometheus and the watcher say now. It is printed at the end."""
        cells = [f"{time.monotonic() - self.begin:5.0f} s", f"{what:<24}"]
        for query in QUERIES:
            cells.append(f"{''.join(f'{value:.0f}' for value in self.stack.query(query)) or '-':>6}")
        backlog = self.look().backlog
        cells.append(f"{backlog.versions if backlog else '-':>7}")
        self.seen.append("  ".join([*cells, STATES[self.stack.alert_state()]]))


def timed(what: str, probe: Callable[[], T | None], limit: float, result: Callable[[T], str]) -> None:
    """Wait for something, and print how long it took and its result. A terminal shows the seconds pass."""
    begin = time.monotonic()
    rewrite = "\r" if sys.stdout.isatty() else ""

    def line() -> str:
        return f"{rewrite}{time.monotonic() - begin:7.1f} s  {what:<30}"

    def look() -> T | None:
        if rewrite:
            print(line(), end="", flush=True)
        return probe()

    found = wait_for(what, look, limit)
    print(line() + result(found), flush=True)


def play(story: Story) -> None:
    """Follow the steps of the README. A step with another result than the README's ends the story."""
    story.script("create_table.py", lambda printed: "default.visits, empty, at version 0")
    story.script("visits_creator_job.py", last_line)
    story.script("visits_reader.py", lambda printed: f"{printed.count('|visit ')} rows")
    story.gauges("writer has run", writer=3, reader=None)
    story.script("visits_consumer.py", last_line)
    story.gauges("consumer has caught up", writer=3, reader=3)
    story.alert("inactive")
    story.script("visits_creator_job.py", last_line)
    story.gauges("writer has run again", writer=6, reader=3)
    story.alert("pending")
    story.alert("firing")
    story.script("visits_consumer.py", last_line)
    story.gauges("consumer has caught up", writer=6, reader=6)
    story.alert("inactive")


def play_killed_consumer(story: Story) -> None:
    """Write once more, and kill the consumer that reads it."""
    story.script("visits_creator_job.py", last_line)
    story.script("visits_consumer.py", lambda printed: "killed in the middle of its batch", story.batch_runs)
    story.gauges("consumer was killed", writer=9, reader=6)


def main() -> None:
    """Start the stack, play the story, print what Prometheus and the watcher said, stop the stack."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # however this process ends, it stops what it started
    real = os.environ.get("TIMING") == "real"
    begin = time.monotonic()
    timing, where = REAL if real else COMPRESSED, os.environ.get("STACK", "")
    with tempfile.TemporaryDirectory() as folder, any_stack(Path(folder), timing, where) as (stack, kind):
        print(f"Prometheus {stack.prometheus}, Pushgateway {stack.pushgateway} ({kind})")
        if not real:
            times = ", ".join(f"{long} becomes {short.split()[1]}" for long, short in COMPRESSED.items())
            print(f"Times are compressed: {times}. For the tutorial's own times: make demo TIMING=real")
        story = Story(stack, Path(folder, "warehouse"))
        play(story)
        play_killed_consumer(story)
        print("\nWhat Prometheus and the watcher said:")
        print("   time  after                     writer  reader     lag  watcher  alert")
        print("\n".join(story.seen))
        running = running_seconds(story.look(), time.time())
        print("\nA killed consumer pushes nothing: its gauge looks like that of an idle one.")
        print(f"The watcher sees a batch that was planned {running:.1f} s ago and has not ended.")
        command = [sys.executable, "-m", "delta_watch", "--once", f"{folder}/warehouse"]
        print("\n$ delta-watch --once warehouse")
        print(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout, end="")
    print(f"\nDone in {time.monotonic() - begin:.0f} s. The stack is stopped, and nothing is left running.")


if __name__ == "__main__":
    run(main)
