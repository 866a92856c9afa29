"""The page that compares runs, in a real browser."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from autocompress.report.compare import compare_runs
from autocompress.report.compare_page import write_comparison
from tests.needs import need_program
from tests.report.conftest import make_synthetic_run

CHROMIUM = need_program("chromium")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The page of two runs on a phone's width; `said` is what went wrong, `asked` what it asked."""
    path = tmp_path_factory.mktemp("compare") / "compare.html"
    runs = [
        dataclasses.replace(make_synthetic_run(seed=s), name=name, folder=Path(name))
        for s, name in enumerate(("first", "<b>second</b>"))
    ]
    write_comparison(compare_runs(runs), path)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        shown = browser.new_page(viewport={"width": 390, "height": 844})
        shown.said, shown.asked = [], []
        shown.on("console", lambda message: shown.said.append(message.text))
        shown.on("pageerror", lambda error: shown.said.append(str(error)))
        shown.on("request", lambda request: shown.asked.append(request.url))
        shown.goto(path.as_uri())
        shown.wait_for_selector(".scatterlayer .trace")
        yield shown
        browser.close()


def test_compare_page_draws_a_line_per_run_and_asks_for_nothing(page: Any) -> None:
    assert page.locator('[data-figure="fronts-size"] .scatterlayer .trace').count() == 2
    assert page.locator(".legendtext").all_text_contents()[:2] == ["first", "<b>second</b>"]
    assert page.said == []
    assert len([url for url in page.asked if not url.startswith(("data:", "blob:"))]) == 1


@pytest.mark.parametrize("width", [390, 1200])
def test_compare_page_is_no_wider_than_its_window_and_open_to_everybody(
    page: Any, width: int
) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = Axe().run(page).response["violations"]
    assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []
