"""Results as notebooks show them: a table and the figure, in whatever form plotly is set to."""

import html
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_TITLES = {
    "trial": "trial",
    "label": "what",
    "accuracy": "accuracy",
    "size_bytes": "size",
    "compression": "smaller",
    "latency_ms": "ms",
    "speedup": "faster",
}


def points_html(table: "pd.DataFrame") -> str:
    """A small HTML table of points; nothing in it is taken for markup."""
    from autocompress.report.wording import format_size

    def cell(name: str, value: Any) -> str:
        if value is None or value != value or str(value) == "<NA>":
            return "-"
        words = {
            "accuracy": lambda: f"{100 * value:.2f} %",
            "size_bytes": lambda: format_size(value),
            "compression": lambda: f"{value:.2f}x",
            "speedup": lambda: f"{value:.2f}x",
            "latency_ms": lambda: f"{value:.3f}",
        }
        return html.escape(words.get(name, lambda: str(value))())

    head = "".join(f"<th>{_TITLES[name]}</th>" for name in table.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{cell(name, row[name])}</td>" for name in table.columns) + "</tr>"
        for _, row in table.iterrows()
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def figure_html(figure: "go.Figure") -> str:
    """A figure in the form that plotly's renderer gives it; empty where that is no HTML.

    With the renderer `png` or `svg` it is a picture, which keeps stored notebooks small.
    """
    bundle = figure._repr_mimebundle_() or {}
    if isinstance(bundle, tuple):
        bundle = bundle[0]
    if "text/html" in bundle:
        return str(bundle["text/html"])
    if "image/svg+xml" in bundle:
        return str(bundle["image/svg+xml"])
    for kind in ("image/png", "image/jpeg"):
        if kind in bundle:
            title = re.sub("<[^>]*>", "", str(figure.layout.title.text or ""))
            return f'<img alt="{title}" src="data:{kind};base64,{bundle[kind]}">'
    return ""
