"""A real browser: Debian's Chromium, driven by Playwright. Tests skip where either is missing."""

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from autocompress.report.page import write_report
from autocompress.run_record import RunRecord
from tests.needs import need_program

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NewPage = Callable[..., "Page"]


def _load(path: Path) -> ModuleType:
    """Tests are no package: builders of other folders are loaded by their path."""
    spec = importlib.util.spec_from_file_location(f"_of_browser_tests_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_BUILDERS = _load(Path(__file__).parents[1] / "report" / "conftest.py")


@pytest.fixture(scope="session")
def make_run() -> Callable[..., RunRecord]:
    """The factory of synthetic runs of the report's tests."""
    factory: Callable[..., RunRecord] = _BUILDERS.make_synthetic_run
    return factory


@pytest.fixture(scope="session")
def full_run(make_run: Callable[..., RunRecord]) -> RunRecord:
    """A run that has everything: a sensitivity table, refined, validated and failed trials."""
    run: RunRecord = _BUILDERS.with_longer_training(_BUILDERS.with_options(make_run(24)))
    return run


@pytest.fixture(scope="session")
def report_address(full_run: RunRecord, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of `full_run` as a file: its `file://` address."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(full_run, path)
    return path.as_uri()


@pytest.fixture(scope="session")
def until() -> Callable[["Page", str], None]:
    """Waits until an expression is true; `wait_for_function` needs eval, which pages forbid."""

    def wait(page: "Page", expression: str) -> None:
        for _ in range(200):
            if page.evaluate(f"() => Boolean({expression})"):
                return
            page.wait_for_timeout(50)
        pytest.fail(f"never true: {expression}")

    return wait


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """One Chromium for the tests of a file: Playwright allows one driver at a time."""
    program = need_program("chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        # root, as in a container, has no sandbox; the pages are the tests' own
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def new_page(browser: "Browser") -> Iterator[NewPage]:
    """Opens pages in a context of their own: `new_page(width=390, dark=True)`.

    At the end of the module all of them must have been free of errors on the console, and of
    requests to anywhere but files and this machine.
    """
    contexts, problems = [], []

    def open_page(*, width: int = 1280, height: int = 900, dark: bool = False) -> "Page":
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: problems.append(f"error: {error}"))
        page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith(("file:", "data:", "blob:", "http://127.0.0.1:"))
                else problems.append(f"request: {request.url}")
            ),
        )
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture
def page(new_page: NewPage) -> "Page":
    """An empty page, 1280 pixels wide, in light colours."""
    return new_page()
