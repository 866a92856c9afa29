"""The site builds without a warning: every link between pages resolves."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.conftest import PAGES, ROOT
from tests.needs import need_extra


def test_site_builds_without_warnings_and_holds_every_command(tmp_path: Path) -> None:
    need_extra("docs")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    commands = (tmp_path / "reference" / "cli" / "index.html").read_text(encoding="utf-8")
    for name in ("search", "compare", "report"):
        assert f'id="autocompress-{name}"' in commands
    classes = (tmp_path / "reference" / "api" / "index.html").read_text(encoding="utf-8")
    assert "proxy_epochs" in classes
    notebook = (tmp_path / "how-to" / "notebook" / "index.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in notebook
    start = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert not re.search(r'(?:src|href)="(?:https?:)?//', start), "the site must fetch nothing"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_of_a_page_lead_to_files_of_the_repository(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    for link in links:
        if not link.startswith(("http://", "https://", "#")):
            assert (page.parent / link.partition("#")[0]).exists(), link
