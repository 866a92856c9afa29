"""Pictures of a run's report for README and docs, taken by headless Chromium.

    python benchmarks/report_pictures.py results/digits

Writes to docs/img: digits-report (its top), report-dark, report-phone (390 pixels wide) and
report-card (the card of the front's smallest point within one point of accuracy).
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from autocompress.objective import OBJECTIVES
from autocompress.report.findings import cheapest_within
from autocompress.report.page import write_report
from autocompress.study.records import load_run

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_FOLDER = Path(__file__).parents[1] / "docs" / "img"


def main() -> int:
    """Write the page, open it, take the pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    run = load_run(parser.parse_args().run)
    best = cheapest_within(run, run.feasible, OBJECTIVES["size"])
    if best is None:
        print("No point of this run lies within one point of its baseline.", file=sys.stderr)
        return 1
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        path = Path(folder) / "report.html"
        write_report(run, path)
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = _open(browser, path, width=1100, height=1560)
        page.screenshot(path=_FOLDER / "digits-report.png")
        page.set_viewport_size({"width": 1000, "height": 1500})
        page.evaluate(f"location.hash = 'trial-{best.number}'")
        page.locator("dialog[open]").screenshot(path=_FOLDER / "report-card.png")
        page = _open(browser, path, width=1100, height=1560, dark=True)
        page.screenshot(path=_FOLDER / "report-dark.png")
        page = _open(browser, path, width=390, height=1700)
        page.screenshot(path=_FOLDER / "report-phone.png")
        browser.close()
    return 0


def _open(browser: "Browser", path: Path, *, width: int, height: int, dark: bool = False) -> "Page":
    page = browser.new_page(
        viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
    )
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-drawn=all]", state="attached", timeout=120_000)
    return page


if __name__ == "__main__":
    raise SystemExit(main())
