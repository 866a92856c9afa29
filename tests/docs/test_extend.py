"""The page on packages of one's own shows the package that tests/test_entry_points.py installs."""

import tomllib
from pathlib import Path

from tests.docs.conftest import ROOT, blocks

PAGE = ROOT / "docs" / "how-to" / "extend.md"
PACKAGE = ROOT / "tests" / "plugin_package"


def test_python_of_the_page_is_that_of_the_package() -> None:
    modules = (PACKAGE / "autocompress_example").glob("[!_]*.py")
    shown = {block.text for block in blocks(PAGE, "python")}
    assert shown == {Path(module).read_text(encoding="utf-8") for module in modules}


def test_entry_points_of_the_page_are_those_of_the_package() -> None:
    shown = "\n".join(block.text for block in blocks(PAGE, "toml"))
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text(encoding="utf-8"))
    assert tomllib.loads(shown) == project
    assert len(project["project"]["entry-points"]) == 7
