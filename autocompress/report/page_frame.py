"""The frame of a page that needs nothing else, not even a network.

A Content-Security-Policy forbids every request and every script but the inlined ones, which are
named by their hashes: even an unescaped name could not run or load anything.
"""

import base64
import hashlib
import html
from collections.abc import Sequence
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


def page_html(title: str, body: str, scripts: Sequence[str], *, may_fetch: bool = False) -> str:
    """A whole HTML document.

    Args:
        title: Text, not escaped.
        body: HTML, without the scripts.
        scripts: Sources that may run; they are put at the end of the body.
        may_fetch: Whether they may ask the server that the page came from.
    """
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
    fetch = "connect-src 'self'; " if may_fetch else ""
    # Plotly writes style sheets at run time, and pictures into its own blobs.
    policy = (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; {fetch}"
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    inlined = "\n".join(f"<script>{script}</script>" for script in scripts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{style_sheet()}</style>\n</head>\n"
        f"<body>\n{body}\n{inlined}\n</body>\n</html>\n"
    )
