"""A chart on the page: where it is drawn, and its data as JSON for the page's script."""

import plotly.graph_objects as go


def plot_html(name: str, figure: go.Figure, caption: str, *, min_width_px: int = 0) -> str:
    """A figure with its caption; drawn by the script of `page_assets`.

    Args:
        name: Unique on the page.
        figure: What to draw; its texts are escaped.
        caption: HTML.
        min_width_px: Below this the figure scrolls sideways; 0 for no limit.
    """
    data = figure.to_json().replace("<", "\\u003c").replace(">", "\\u003e")
    style = f"height:{figure.layout.height}px"
    if min_width_px:
        style += f";min-width:{min_width_px}px"
    return (
        f'<figure><div class="plot-frame"><div class="plot" data-figure="figure-{name}" '
        f'style="{style}"></div></div><figcaption>{caption}</figcaption></figure>'
        "<noscript><p>The chart needs JavaScript; the table holds the same figures.</p></noscript>"
        f'<script type="application/json" id="figure-{name}">{data}</script>'
    )
