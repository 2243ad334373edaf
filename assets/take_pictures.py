"""Retake the README's pictures: play the demo in the tutorial's own times, and take screenshots on the way.

Usage: make pictures (about 9 minutes; needs Chromium). The pages are those of Debian's Prometheus.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from itertools import groupby
from pathlib import Path
from urllib.parse import urlencode

from tutorial.script import run

from delta_watch.exporter import Server, serve
from demo.__main__ import QUERIES, Story, play
from demo.stack import ALERT, REAL, Stack, local_stack, wait_for
from lag_detector.errors import LagDetectorError
from tests.helpers.watcher_answers import answers, behind

import matplotlib.pyplot as plt
from matplotlib.dates import DateFormatter
from playwright.sync_api import Browser, FloatRect, Page, sync_playwright

ASSETS = Path(__file__).parent
WIDTH, SCALE, MARGIN = 800, 2, 8  # in CSS pixels; PNG pixels per CSS pixel; in CSS pixels
COLORS = {"Normal": "#73bf69", "Pending": "#ff9830", "Firing": "#f2495c"}
# 0 is Normal, 1 Pending, 2 Firing, as in the order of the colors.
STATE = (
    f'max(2 * ALERTS{{alertname="{ALERT}",alertstate="firing"}} or ALERTS{{alertname="{ALERT}",alertstate="pending"}})'
    " or vector(0)"
)
# What the pictures leave out: buttons, statistics, the rule's definition, the path of its file.
HIDDEN = (
    ".eval_stats, .execute_btn, .expression_select, a[name=remove], .prometheus_input_group, .stacked_btn, "
    ".show-annotations, pre, #alertFilters"
)


class PhotographedStory(Story):
    """A story that takes a picture at some of its notes."""

    def __init__(self, stack: Stack, warehouse: Path, page: Page) -> None:
        super().__init__(stack, warehouse)
        self.page = page
        self.start = time.time()
        self.pictures: dict[int, Callable[[], None]] = {
            0: partial(self.graph, "explore_metrics_writer", "visits_writer_version"),
            1: partial(self.graph, "explore_metrics_reader", "visits_reader_version"),
            3: partial(self.graph, "writer_version_increased", "visits_writer_version"),
            4: partial(self.alerts, "alert_pending"),
            5: partial(self.alerts, "alert_firing"),
            7: partial(self.alerts, "alert_normal"),
        }

    def note(self, what: str) -> None:
        super().note(what)
        self.pictures.get(len(self.seen) - 1, lambda: None)()

    def graph(self, name: str, query: str) -> None:
        """Take a picture of a gauge's graph, once it has a visible line."""
        value = self.stack.query(query)
        steady = f"count_over_time(({query} == {value[0]:.0f})[2m:15s]) >= 4"
        wait_for(f"a line of {query}", lambda: self.stack.query(steady) or None, 120)
        minutes = max(2, round((time.time() - self.start) / 60) + 1)
        address = urlencode({"g0.expr": query, "g0.tab": 0, "g0.range_input": f"{minutes}m"})
        self.page.goto(f"{self.stack.prometheus}/classic/graph?{address}")
        self.page.wait_for_selector(".rickshaw_graph svg path", state="attached")  # a flat line is not "visible"
        self.take(name, ".expression_input", ".legend")

    def alerts(self, name: str) -> None:
        """Take a picture of the tutorial's alert, expanded, on Prometheus' alerts page without the other alerts."""
        self.page.goto(f"{self.stack.prometheus}/classic/alerts")
        others = self.page.locator("#alertsTable > tbody > tr", has_not_text=ALERT)
        others.evaluate_all("rows => rows.forEach(row => row.remove())")
        self.page.get_by_text(ALERT).first.click()
        self.take(name, "#alertsTable", "#alertsTable")

    def take(self, name: str, first: str, last: str) -> None:
        """Save the page from one element to another, in full width."""
        self.page.add_style_tag(content=f"{HIDDEN} {{display: none !important}}")
        top, bottom = (self.page.locator(what).last.bounding_box() for what in (first, last))
        assert top is not None
        assert bottom is not None
        y = max(0, top["y"] - MARGIN)
        height = bottom["y"] + bottom["height"] + MARGIN - y
        clip: FloatRect = {"x": 0, "y": y, "width": WIDTH, "height": height}
        self.page.screenshot(path=ASSETS / f"{name}.png", full_page=True, clip=clip)

    def plot(self, name: str) -> None:
        """Plot what Prometheus has of the run and of one more minute: the alert's states, the versions, the lag."""
        over = time.monotonic() + 60
        wait_for("another minute", lambda: time.monotonic() > over or None, 90)
        times = [self.start + second for second in range(0, int(time.time() - self.start), 5)]
        clock = [datetime.fromtimestamp(at, timezone.utc) for at in times]
        writer, reader, lag, numbers = (
            [(self.stack.query(query, at) or [float("nan")])[0] for at in times] for query in (*QUERIES, STATE)
        )
        figure, (bands, versions, lags) = plt.subplots(
            3, sharex=True, figsize=(WIDTH / 100, 4.2), dpi=100 * SCALE, height_ratios=[1, 6, 4], layout="constrained"
        )
        for number, run_of in groupby(range(len(times)), lambda index: numbers[index]):
            state, indexes = list(COLORS)[int(number)], list(run_of)
            begin, end = clock[indexes[0]], clock[min(indexes[-1] + 1, len(clock) - 1)]
            bands.axvspan(begin, end, color=COLORS[state], linewidth=0)
            bands.text(begin + (end - begin) / 2, 0.5, state, ha="center", va="center")
        bands.set_yticks([])
        bands.set_ylabel("alert", rotation=0, ha="right", va="center")
        versions.step(clock, writer, where="post", label=QUERIES[0], color="#1f60c4")
        versions.step(clock, reader, where="post", label=QUERIES[1], color="#8f3bb8", linestyle="--")
        versions.set_ylabel("version")
        versions.set_ylim(0, 7)
        versions.legend(loc="lower right")
        lags.fill_between(clock, lag, step="post", color="#8ab8ff")
        lags.axhline(2, color="#c4162a", linestyle=":")
        lags.annotate("the alert's threshold", (clock[0], 2), xytext=(4, 4), textcoords="offset points")
        lags.set_ylabel("lag")
        lags.set_ylim(0, 4)
        lags.set_xlim(clock[0], clock[-1])
        lags.set_xlabel("time (UTC)")
        lags.xaxis.set_major_formatter(DateFormatter("%H:%M"))  # type: ignore[no-untyped-call]
        figure.savefig(ASSETS / f"{name}.png")


def page_of_the_watcher(browser: Browser) -> None:
    """Take a picture of the watcher's page, with results that are made up."""
    now = time.time()
    clicks = behind("s3://lake/clicks", ["sessions", "search"], now)
    httpd = serve(answers(now, more=[clicks]), Server(port=0))
    page = browser.new_page(viewport={"width": 1100, "height": 100})
    page.goto(f"http://127.0.0.1:{httpd.server_port}/")
    page.screenshot(path=ASSETS / "watcher_page.png", full_page=True)
    httpd.shutdown()


def chromium() -> str:
    """Return the path of the browser.

    Raises:
        LagDetectorError: there is none.
    """
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        raise LagDetectorError("there is no Chromium on the PATH; install it (apt-get install chromium) and try again")
    return found


def main() -> None:
    """Play the story once and save its pictures."""
    no_sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's sandbox does not work for root
    with (
        tempfile.TemporaryDirectory() as folder,
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium(), args=no_sandbox) as browser,
        local_stack(Path(folder), REAL) as stack,
    ):
        page = browser.new_page(viewport={"width": WIDTH, "height": 700}, device_scale_factor=SCALE, timezone_id="UTC")
        story = PhotographedStory(stack, Path(folder, "warehouse"), page)
        play(story)
        story.plot("alert_history")
        page_of_the_watcher(browser)
    print(f"The pictures are in {ASSETS}.")


if __name__ == "__main__":
    run(main)
