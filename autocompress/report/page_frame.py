"""The frame of a page that needs nothing else, not even a network.

A Content-Security-Policy forbids every request and every script but the inlined ones, which are
named by their hashes: even an unescaped name could not run or load anything.
"""

import base64
import hashlib
import html
from collections.abc import Sequence

from autocompress.report.page_assets import style_sheet


def page_html(title: str, body: str, scripts: Sequence[str]) -> str:
    """A whole HTML document.

    Args:
        title: Text, not escaped.
        body: HTML, without the scripts.
        scripts: Sources that may run; they are put at the end of the body.
    """
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
    # Plotly writes style sheets at run time, and pictures into its own blobs.
    policy = (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
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
