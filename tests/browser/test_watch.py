"""`watch` in a real browser: it updates itself, takes its reader along, and asks nobody else."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, sync_playwright

from autocompress.errors import InputError
from autocompress.report.live_page import LivePage
from autocompress.report.watch_server import WatchServer
from autocompress.run_record import RunRecord, TrialRecord
from tests.builders import make_measurement, make_run, make_trial
from tests.needs import need_program

_CHROMIUM = need_program("chromium", "chromium-browser")
Until = Callable[[Page, str], None]


def _trial(number: int) -> TrialRecord:
    measured = make_measurement(accuracy=0.95 - number / 500, size_bytes=100_000 // (number + 1))
    return make_trial(number, measured, label=f"trial {number}" if number else "baseline")


def _run(n_trials: int) -> RunRecord:
    return make_run(*map(_trial, range(n_trials)), name="<script>alert(1)</script>")


class WatchedRun:
    """A run whose trials appear when the test says so."""

    def __init__(self) -> None:
        self.run, self.is_driven = _run(12), True
        self.page = LivePage(
            stamp=lambda: self.run, load=lambda: (self.run, ()), is_driven=lambda: self.is_driven
        )


@pytest.fixture(scope="module")
def watch_browser() -> Iterator[Any]:
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def watched() -> WatchedRun:
    return WatchedRun()


@pytest.fixture
def watch_server(watched: WatchedRun) -> Iterator[WatchServer]:
    with WatchServer(watched.page, "token") as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join(30)


@pytest.fixture
def watch_page(watch_browser: Any, watch_server: WatchServer) -> Iterator[Any]:
    """The page, 390 px wide; it must neither complain nor ask anybody else."""
    page = watch_browser.new_page(viewport={"width": 390, "height": 800})
    messages: list[str] = []
    addresses: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: addresses.append(request.url))
    page.goto(watch_server.url)
    page.wait_for_selector("text=Live: 12 trials finished")
    yield page
    page.close()
    assert messages == []
    own = watch_server.url.split("?")[0]
    assert {a for a in addresses if not a.startswith((own, "data:", "blob:"))} == set()


def test_watch_updates_itself_and_takes_its_reader_along(
    watch_page: Any, watched: WatchedRun, until: Until
) -> None:
    watch_page.locator("details").last.evaluate("part => part.open = true")
    watch_page.evaluate("scrollTo(0, 600)")
    until(watch_page, "scrollY > 500")
    scrolled = watch_page.evaluate("scrollY")
    watch_page.evaluate("document.title = 'not loaded anew'")

    watched.run = _run(15)
    watch_page.wait_for_selector("text=Live: 15 trials finished")
    watch_page.wait_for_selector("header >> text=15 trials measured")
    assert abs(watch_page.evaluate("scrollY") - scrolled) < 100
    assert watch_page.locator("details").last.get_attribute("open") is not None
    assert watch_page.evaluate("document.documentElement.scrollWidth") <= 390
    assert watch_page.title() == "not loaded anew"

    watched.is_driven = False
    watch_page.wait_for_selector("text=15 trials finished; no search is running")


def test_watch_leaves_who_reads_in_peace_and_offers_the_news(
    watch_page: Any, watched: WatchedRun
) -> None:
    watch_page.evaluate("getSelection().selectAllChildren(document.querySelector('h1'))")
    watched.run = _run(13)
    watch_page.wait_for_selector("#autocompress-watch button:not([hidden])")
    assert "12 trials measured" in watch_page.inner_text("header")
    assert watch_page.evaluate("String(getSelection())") != ""
    watch_page.click("#autocompress-watch button")
    watch_page.wait_for_selector("header >> text=13 trials measured")
    watch_page.wait_for_selector("text=Live: 13 trials finished")
    assert watch_page.locator("#autocompress-watch button").is_hidden()


def test_watch_waits_for_a_run_that_has_nothing_to_show(
    watch_browser: Any, watch_server: WatchServer, watched: WatchedRun
) -> None:
    def gone() -> Any:
        raise InputError("The run folder <b>x</b> is gone.")

    watched.page._load = gone
    page = watch_browser.new_page()
    page.goto(watch_server.url)
    page.wait_for_selector("text=The run folder <b>x</b> is gone.")
    page.wait_for_selector("text=Waiting for the run")
    watched.page._load = lambda: (watched.run, ())
    page.wait_for_selector("text=Live: 12 trials finished")
    page.close()
