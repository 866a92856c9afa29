"""A chart on the page: where it is drawn, and its data as JSON for the page's script."""

import json
from typing import Any

import plotly.graph_objects as go

from autocompress.report.plane import TRIALS


def plot_html(name: str, caption: str, *, has_points: bool = False) -> str:
    """The place of a figure with its caption; the page's script draws it there.

    Args:
        name: Of the figure, unique on the page.
        caption: HTML.
        has_points: Whether its points are trials: then the keyboard can visit them.
    """
    points = " data-points" if has_points else ""
    return (
        f'<figure><div class="plot-frame"><div class="plot" data-figure="{name}"{points}></div>'
        f"</div><figcaption>{caption}</figcaption></figure>"
        "<noscript><p>The chart needs JavaScript; tables on this page hold the figures.</p>"
        "</noscript>"
    )


def figure_json(figure: go.Figure) -> dict[str, Any]:
    """A figure as plain containers, without the texts that the page has by trial number."""
    data: dict[str, Any] = json.loads(figure.to_json())
    for trace in data["data"]:
        if trace.get("meta") == TRIALS:
            trace.pop("hovertext", None)
    return data
