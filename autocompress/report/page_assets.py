"""The page's style sheet and script, inlined so that the page needs no other file."""

from importlib import resources
from typing import Final

# In this order: each uses what stands above it.
_SCRIPTS: Final = ("data.js", "filters.js", "tables.js", "charts.js", "card.js", "main.js")


def style_sheet() -> str:
    """The page's CSS."""
    return _read("report.css")


def page_script() -> str:
    """The page's own JavaScript, in a scope of its own; it needs Plotly."""
    body = "\n".join(_read(name) for name in _SCRIPTS)
    return f"(() => {{\n'use strict';\n{body}}})();\n"


def _read(name: str) -> str:
    folder = resources.files("autocompress.report") / "assets"
    return (folder / name).read_text(encoding="utf-8")
