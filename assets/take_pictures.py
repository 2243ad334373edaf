"""Retake the pictures of README and docs: play the demo in the tutorial's own times, and take screenshots on the way.

Usage: make pictures (about 10 minutes; needs Chromium and Node 20). Grafana's own UI libraries draw graphs and
dashboards (assets/grafana). The pages of the alert are those of Prometheus 3, from Docker or the one that PROMETHEUS
names.
"""

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tutorial.script import progress, run
from tutorial.visits import READER_VERSION, WRITER_VERSION

from delta_watch.exporter import Server, serve
from demo.__main__ import Story, play
from demo.compose import any_stack
from demo.stack import ALERT, REAL, ROOT, Stack, listening_on, running, wait_for
from lag_detector.errors import LagDetectorError
from tests.helpers.watcher_answers import answers, behind

from PIL import Image
from playwright.sync_api import Page, sync_playwright

ASSETS = Path(__file__).parent
DRAWING = ROOT / ".cache" / "grafana" / "dist"
SCALE = 1.5  # PNG pixels per CSS pixel
EXPLORE, LAG, CONSUMERS, ALERTS = (800, 330), (1280, 1240), (1280, 1194), (800, 1000)  # windows, in CSS pixels


class PhotographedStory(Story):
    """A story that takes a picture at some of its notes."""

    def __init__(self, stack: Stack, warehouse: Path, page: Page) -> None:
        super().__init__(stack, warehouse)
        self.page, self.start = page, time.time()
        self.pictures: dict[int, list[Callable[[], None]]] = {
            1: [lambda: self.explore("explore_metrics_writer", WRITER_VERSION)],
            2: [lambda: self.explore("explore_metrics_reader", READER_VERSION)],
            4: [lambda: self.explore("writer_version_increased", WRITER_VERSION)],
            5: [lambda: self.alert_page("alert_pending")],
            6: [
                lambda: self.alert_page("alert_firing"),
                lambda: self.wait_for_line(f'ALERTS{{alertname="{ALERT}",alertstate="firing"}}'),
                lambda: self.dashboard("dashboard", "visits-lag", LAG),
                lambda: self.dashboard("delta_consumers", "delta-consumers", CONSUMERS),
            ],
            8: [
                lambda: self.alert_page("alert_normal"),
                lambda: self.wait_for_line(f'absent(ALERTS{{alertname="{ALERT}"}})'),
                lambda: self.dashboard("alert_history", "visits-lag", LAG),
            ],
        }

    def note(self, what: str) -> None:
        super().note(what)
        for take in self.pictures.get(len(self.seen), []):
            take()

    def wait_for_line(self, query: str) -> None:
        """Wait until a query has had a value for a minute."""
        wait_for(query, lambda: self.stack.query(f"count_over_time(({query})[5m:15s]) >= 5"), 150)

    def explore(self, name: str, gauge: str) -> None:
        """Take a picture of a gauge in Explore."""
        self.wait_for_line(f"{gauge} == {self.stack.query(gauge)[0]:.0f}")
        self.take(name, EXPLORE, expr=gauge)

    def dashboard(self, name: str, uid: str, window: tuple[int, int]) -> None:
        """Take a picture of a dashboard."""
        self.take(name, window, dashboard=json.loads((ROOT / "grafana" / "dashboards" / f"{uid}.json").read_text()))

    def take(self, name: str, window: tuple[int, int], **what: Any) -> None:
        """Take a picture in a window of this size."""
        self.page.set_viewport_size({"width": window[0], "height": window[1]})
        self.show(**what)
        self.page.wait_for_load_state("networkidle")
        save(name, self.page.screenshot())

    def show(self, **what: Any) -> None:
        """Draw what Prometheus has of this run since its start."""
        self.page.goto(f"{self.stack.prometheus}/draw/index.html")
        self.page.wait_for_function("'draw' in window")
        self.page.evaluate("what => draw(what)", {**what, "from": self.start, "to": time.time()})

    def alert_page(self, name: str) -> None:
        """Take a picture of the tutorial's alert, expanded, on Prometheus' page of alerts."""
        if self.stack.get("status/buildinfo")["version"].startswith("2."):
            return progress(f"{name}.png stays as it is: Prometheus 2 has no such page. PROMETHEUS names another one.")
        self.page.set_viewport_size({"width": ALERTS[0], "height": ALERTS[1]})
        self.page.goto(f"{self.stack.prometheus}/alerts")
        rule = self.page.locator(".mantine-Accordion-item", has=self.page.get_by_text(ALERT, exact=True))
        rule.get_by_role("button").first.click()
        rule.get_by_role("table").last.wait_for()
        return save(name, rule.screenshot(animations="disabled"))


def watcher_page(page: Page) -> None:
    """Take a picture of the watcher's page, with results that are made up."""
    now = time.time()
    httpd = serve(answers(now, more=[behind("s3://lake/clicks", ["sessions", "search"], now)]), Server(port=0))
    page.set_viewport_size({"width": 1100, "height": 100})
    page.goto(f"http://127.0.0.1:{httpd.server_port}/")
    save("watcher_page", page.screenshot(full_page=True))
    httpd.shutdown()


def save(name: str, png: bytes) -> None:
    """Save a picture with 256 colors, which takes a quarter of the bytes."""
    path = ASSETS / f"{name}.png"
    path.write_bytes(png)
    Image.open(path).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE).save(path, optimize=True)


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
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=chromium()) as browser:
        page = browser.new_page(
            device_scale_factor=SCALE, timezone_id="UTC", color_scheme="dark", extra_http_headers=headers
        )
        page.route("**/draw/**", lambda route: route.fulfill(path=DRAWING / route.request.url.partition("/draw/")[2]))
        yield page


def main() -> None:
    """Play the story once and save its pictures."""
    with (
        tempfile.TemporaryDirectory() as name,
        open_page() as page,
        any_stack(Path(name), REAL, os.environ.get("STACK", "")) as (stack, kind),
    ):
        folder = Path(name)
        config, log, (targets,) = folder / "watch.toml", folder / "watch.log", folder.rglob("targets/watch.yml")
        config.write_text((ROOT / "examples" / "watch.toml").read_text().replace("../warehouse", f"{name}/warehouse"))
        listen, scrape = ("0.0.0.0", "host.docker.internal") if kind == "compose stack" else ("127.0.0.1", "127.0.0.1")
        command = [sys.executable, "-m", "delta_watch", str(config), "--port=0", f"--address={listen}"]
        with running(command, "http://{address}/metrics", log):
            targets.write_text(f'- targets: ["{scrape}:{listening_on(log).rpartition(":")[2]}"]\n')
            play(PhotographedStory(stack, folder / "warehouse", page))
        watcher_page(page)
    print(f"The pictures are in {ASSETS}.")


if __name__ == "__main__":
    run(main)
