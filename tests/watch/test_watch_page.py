"""The page, in Chromium: its lines, filter and order, with JavaScript and without, light and dark, on a phone."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from wsgiref.simple_server import WSGIServer

from delta_watch.exporter import Server, WatcherCollector, serve
from delta_watch.page import ROWS, duration, size
from tests.helpers.watcher_answers import ORDERS, VISITS, answers, behind

import pytest

playwright = pytest.importorskip("playwright.sync_api")
from playwright.sync_api import Browser, Page, expect, sync_playwright  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SCRIPT = "<script>alert(1)</script>\"'&lt;\udce9"
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def collector() -> WatcherCollector:
    now = time.time()
    return answers(now, more=[behind("clicks", ["x", SCRIPT, "z"], now)])


@pytest.fixture
def httpd(collector: WatcherCollector) -> Iterator[WSGIServer]:
    httpd = serve(collector, Server(port=0))
    yield httpd
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture
def page(browser: Browser, httpd: WSGIServer) -> Iterator[Page]:
    """The page, whose scripts must report nothing."""
    page = browser.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.clock.install()
    page.goto(f"http://127.0.0.1:{httpd.server_port}/")
    yield page
    assert said == []
    page.close()


def names(page: Page) -> list[str]:
    """Return the consumers on the page, from top to bottom."""
    return [text.partition("\n")[0] for text in page.locator("tbody th").all_inner_texts()]


def cells(page: Page, consumer: str) -> list[str]:
    row = page.locator("tbody tr", has=page.get_by_role("rowheader", name=consumer))
    return row.locator("th, td").all_inner_texts()


def test_worst_first_in_words_and_numbers(page: Page) -> None:
    shown = SCRIPT.replace("\udce9", "?")
    assert names(page) == ["fraud", "lost", "z", shown, "x", "search"]
    fraud = (
        "fraud\n\nThe log that it still needs may be cleaned up in 22 h 53 min; let it catch up, or raise "
        "delta.logRetentionDuration"
    )
    assert cells(page, "fraud") == ["behind, 1 rewrite", fraud, VISITS, "3", "1 h 6 min", "5", "4.1 kB", "9"]
    lost = "lost\n\n/jobs/lost/offsets/7 is not a batch; restore the checkpoint if this persists (corrupt)"
    assert cells(page, "lost") == ["unknown", lost, VISITS, *["?"] * 5]
    assert cells(page, "search") == ["up to date", "search", ORDERS, "0", "0 s", "0", "0 B", "0"]
    assert page.title() == "1 unknown, 4 behind"


def test_refresh_keeps_filter_order_and_focus(page: Page, collector: WatcherCollector) -> None:
    page.get_by_role("link", name="Versions").click()
    expect(page.get_by_role("columnheader", name="Versions")).to_have_attribute("aria-sort", "descending")
    page.get_by_role("searchbox").fill("behind CLICKS")
    page.wait_for_url("**q=behind+CLICKS**")
    assert names(page)[::2] == ["z", "x"]
    collector.watcher = answers(time.time(), more=[behind("clicks", ["a", "b"], time.time())]).watcher
    page.clock.fast_forward(15_000)
    expect(page.locator("tbody th")).to_have_text(["b", "a"])
    expect(page.get_by_role("searchbox")).to_be_focused()
    assert page.get_by_role("searchbox").input_value() == "behind CLICKS"
    page.get_by_role("link", name="Versions").click()
    expect(page.locator("tbody th")).to_have_text(["a", "b"])
    expect(page.get_by_role("link", name="Versions")).to_be_focused()
    page.reload()
    expect(page.locator("tbody th")).to_have_text(["a", "b"])
    page.get_by_role("link", name="1 unknown").click()
    expect(page.locator("tbody th")).to_have_count(1)
    page.get_by_role("searchbox").fill("nobody")
    expect(page.get_by_text("Nothing contains this text.")).to_be_visible()


def test_watcher_that_does_not_answer(browser: Browser, httpd: WSGIServer) -> None:
    page = browser.new_page()
    page.clock.install()
    page.goto(f"http://127.0.0.1:{httpd.server_port}/")
    stale = page.get_by_text("The watcher does not answer. What you see is out of date.")
    expect(stale).to_be_hidden()
    page.route("**", lambda route: route.abort())
    page.clock.fast_forward(15_000)
    expect(stale).to_be_visible()
    page.unroute("**")
    page.clock.fast_forward(15_000)
    expect(stale).to_be_hidden()
    page.close()


def test_without_javascript_it_is_a_plain_table(browser: Browser, httpd: WSGIServer) -> None:
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(f"http://127.0.0.1:{httpd.server_port}/")
    page.get_by_role("link", name="Consumer", exact=True).click()
    assert names(page)[1:3] == ["fraud", "lost"]
    page.get_by_role("searchbox").fill("clicks")
    page.get_by_role("searchbox").press("Enter")
    page.wait_for_url("**q=clicks")
    assert names(page)[1:] == ["x", "z"]
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_no_sideways_scrolling_and_the_colors_that_you_prefer(
    page: Page, collector: WatcherCollector, scheme: str, width: int
) -> None:
    collector.watcher = answers(0, more=[behind(f"s3://lake/{'long' * 30}", ["consumer" * 20], 0)]).watcher
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.set_viewport_size({"width": width, "height": 800})
    page.reload()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")


def test_ten_thousand_consumers_in_pages(page: Page, collector: WatcherCollector) -> None:
    collector.watcher = answers(0, more=[behind("clicks", map(str, range(10_000)), 0)]).watcher
    page.reload()
    assert page.locator("tbody tr").count() == ROWS
    expect(page.get_by_text("1 to 200 of 10,003 Next")).to_be_visible()
    page.get_by_role("link", name="Next").click()
    expect(page.get_by_text("Previous 201 to 400 of 10,003 Next")).to_be_visible()
    page.get_by_role("searchbox").fill("123")
    expect(page.locator("tbody tr")).to_have_count(20)


def test_with_a_password(browser: Browser, collector: WatcherCollector, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret")
    httpd = serve(collector, Server(port=0, username="me", password_file=str(tmp_path / "password")))
    page = browser.new_page()
    page.clock.install()
    page.goto(f"http://me:secret@127.0.0.1:{httpd.server_port}/")
    page.get_by_role("searchbox").fill("fraud")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.close()
    httpd.shutdown()
    httpd.server_close()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "?"), (0, "0 s"), (59.6, "1 min"), (3661, "1 h 1 min"), (90061, "1 d 1 h"), (1e8, "1157 d 9 h")],
)
def test_duration(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "?"), (0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_999, "1 MB"), (98_123_456_789, "98.1 GB")],
)
def test_size(count: int | None, text: str) -> None:
    assert size(count) == text
