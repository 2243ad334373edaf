"""Retake the pictures of README and docs: play the demo in the tutorial's own times, and take screenshots on the way.

Usage: make pictures (about 12 minutes; needs Chromium and Node 20). Grafana's own UI libraries draw graphs and
dashboards (assets/grafana). The pages of the alert are those of Prometheus 3, from Docker or the one that PROMETHEUS
names.
"""

import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tutorial.script import progress, run
from tutorial.visits import READER_VERSION, WRITER_VERSION

from demo.__main__ import Story, play
from demo.compose import any_stack
from demo.stack import ALERT, REAL, ROOT, Stack, last_line, running, wait_for
from lag_detector.errors import LagDetectorError

from PIL import Image
from playwright.sync_api import FloatRect, Page, sync_playwright

ASSETS = Path(__file__).parent
DRAWING = ROOT / ".cache" / "grafana" / "dist"
NARROW, WIDE, SCALE = 800, 1280, 1.5  # in CSS pixels, twice; PNG pixels per CSS pixel


class PhotographedStory(Story):
    """A story that takes a picture at some of its notes."""

    def __init__(self, stack: Stack, warehouse: Path, page: Page) -> None:
        super().__init__(stack, warehouse)
        self.page, self.start = page, time.time()
        self.has_alert_page = not stack.get("/api/v1/status/buildinfo")["version"].startswith("2.")

    def note(self, what: str) -> None:
        super().note(what)
        match len(self.seen):
            case 1:
                self.explore("explore_metrics_writer", WRITER_VERSION)
            case 2:
                self.explore("explore_metrics_reader", READER_VERSION)
            case 4:
                self.explore("writer_version_increased", WRITER_VERSION)
            case 5:
                self.alert_page("alert_pending")
            case 6:
                self.alert_page("alert_firing")
                self.dashboard("dashboard", "visits-lag")
            case 8:
                self.alert_page("alert_normal")
                self.wait_for_line(f"{READER_VERSION} == 6")
                self.dashboard("alert_history", "visits-lag", first="Versions and lag")

    def wait_for_line(self, query: str) -> None:
        """Wait until a query has had a value for a minute."""
        wait_for(query, lambda: self.stack.query(f"count_over_time(({query})[5m:15s]) >= 5") or None, 150)

    def explore(self, name: str, gauge: str) -> None:
        """Take a picture of a gauge in Explore."""
        self.wait_for_line(f"{gauge} == {self.stack.query(gauge)[0]:.0f}")
        self.show(NARROW, expr=gauge)
        self.take(name)

    def dashboard(self, name: str, uid: str, first: str = "", end: str = "") -> None:
        """Take a picture of a dashboard, from the panel titled `first` up to the one titled `end`."""
        self.show(WIDE, dashboard=json.loads((ROOT / "grafana" / "dashboards" / f"{uid}.json").read_text()))
        self.take(name, first, end)

    def show(self, width: int, **what: object) -> None:
        """Draw what Prometheus has of this run since its start."""
        self.page.set_viewport_size({"width": width, "height": 300})
        self.page.goto(f"{self.stack.prometheus}/draw/index.html")
        self.page.wait_for_function("'draw' in window")
        self.page.evaluate("what => draw(what)", {**what, "from": self.start, "to": time.time()})

    def take(self, name: str, first: str = "", end: str = "") -> None:
        """Save the page, or the part of it from one title up to another."""
        self.page.wait_for_load_state("networkidle")
        width, height = self.page.evaluate("[innerWidth, document.body.scrollHeight]")
        boxes = [self.page.get_by_text(title, exact=True).bounding_box() if title else None for title in (first, end)]
        top, bottom = (box["y"] - 16 if box else edge for box, edge in zip(boxes, (0, height), strict=True))
        clip: FloatRect = {"x": 0, "y": top, "width": width, "height": bottom - top}
        save(name, self.page.screenshot(full_page=True, clip=clip))

    def alert_page(self, name: str) -> None:
        """Take a picture of the tutorial's alert, expanded, on Prometheus' page of alerts."""
        if self.has_alert_page:
            self.page.set_viewport_size({"width": NARROW, "height": 1200})
            self.page.goto(f"{self.stack.prometheus}/alerts")
            rule = self.page.locator(".mantine-Accordion-item", has=self.page.get_by_text(ALERT, exact=True))
            rule.get_by_role("button").first.click()
            self.page.wait_for_load_state("networkidle")
            save(name, rule.screenshot(animations="disabled"))

    def end_with_killed_consumer(self) -> None:
        """Kill the consumer in its batch, let an additional one read, and take a picture of the watcher's dashboard."""
        self.script("visits_creator_job.py", last_line)
        self.kill_consumer()
        self.environment["VISITS_CONSUMER"] = "fraud"
        self.script("visits_consumer.py", last_line)
        self.wait_for_line('delta_consumer_lag_versions{consumer="fraud"} == 0')
        self.dashboard("delta_consumers", "delta-consumers", end="Backlog in bytes")


def save(name: str, png: bytes) -> None:
    """Save a picture with 256 colors, which takes a third of the bytes."""
    path = ASSETS / f"{name}.png"
    path.write_bytes(png)
    Image.open(path).convert("RGB").quantize(256).save(path, optimize=True)


def chromium() -> str:
    """Return the path of the browser.

    Raises:
        LagDetectorError: there is none.
    """
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        raise LagDetectorError("there is no Chromium on the PATH; install it (apt-get install chromium) and try again")
    return found


@contextmanager
def open_page(headers: dict[str, str] | None = None) -> Iterator[Page]:
    """Open a browser, with headers for each request, in which every server has the drawing program at /draw/."""
    no_sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's sandbox does not work for root
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium(), args=no_sandbox) as browser,
    ):
        page = browser.new_page(
            device_scale_factor=SCALE, timezone_id="UTC", color_scheme="dark", extra_http_headers=headers
        )
        page.route("**/draw/**", lambda route: route.fulfill(path=DRAWING / route.request.url.partition("/draw/")[2]))
        yield page


def main() -> None:
    """Play the story once and save its pictures."""
    with ExitStack() as stopped_at_the_end:
        folder = Path(stopped_at_the_end.enter_context(tempfile.TemporaryDirectory()))
        page = stopped_at_the_end.enter_context(open_page())
        stack, kind = stopped_at_the_end.enter_context(any_stack(folder, REAL, os.environ.get("STACK", "")))
        story = PhotographedStory(stack, folder / "warehouse", page)
        if not story.has_alert_page:
            progress("This is Prometheus 2: pictures of its page of alerts stay as they are. PROMETHEUS names another.")
        # The watcher follows the whole story.
        log, config, (targets,) = folder / "watch.log", folder / "watch.toml", folder.rglob("targets/watch.yml")
        example = (ROOT / "examples" / "watch.toml").read_text()
        config.write_text(example.replace("../warehouse", str(folder / "warehouse")))
        listen, scrape = ("0.0.0.0", "host.docker.internal") if kind == "compose stack" else ("127.0.0.1", "127.0.0.1")
        command = [sys.executable, "-m", "delta_watch", str(config), "--port=0", f"--address={listen}"]
        stopped_at_the_end.enter_context(running(command, "http://127.0.0.1:{address}/metrics", log, port_of_watcher))
        targets.write_text(f'- targets: ["{scrape}:{port_of_watcher(log)}"]\n')
        play(story)
        story.end_with_killed_consumer()
    print(f"The pictures are in {ASSETS}.")


def port_of_watcher(log: Path) -> str:
    """Return the port that the watcher has logged, or nothing."""
    found = re.search(r"http://.+:(\d+)/", log.read_text())
    return found[1] if found else ""


if __name__ == "__main__":
    run(main)
