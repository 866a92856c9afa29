"""Colours, template and axes that all figures share."""

from collections.abc import Sequence
from typing import Any, Final

import plotly.graph_objects as go

# Okabe & Ito (2008): told apart with every common colour blindness, on white and on black.
BLUE: Final = "#0072B2"
GREEN: Final = "#009E73"
VERMILLION: Final = "#D55E00"
PURPLE: Final = "#CC79A7"
GREY: Final = "#8A8F98"

# One hue, light to dark: order survives colour blindness and a black-and-white print.
SEQUENTIAL: Final = (
    (0.0, "#EEF3F8"),
    (0.25, "#C0D8EA"),
    (0.5, "#7FB3D6"),
    (0.75, "#3A83B7"),
    (1.0, "#0B4A7D"),
)
FONT: Final = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"

# From this ratio of largest to smallest on, a linear axis hides the small values.
_LOG_FROM: Final = 6.0


def new_figure(title: str, subtitle: str = "", height_px: int = 520) -> go.Figure:
    """An empty figure in the shared template; `title` and `subtitle` are escaped text."""
    figure = go.Figure()
    axis = {
        "gridcolor": "rgba(128,128,128,0.22)",
        "linecolor": "rgba(128,128,128,0.6)",
        "zeroline": False,
        "ticks": "outside",
        "tickcolor": "rgba(128,128,128,0.6)",
        "automargin": True,
        "title": {"standoff": 12},
    }
    figure.update_layout(
        template="none",
        title={
            "text": f"<b>{title}</b>",
            "subtitle": {"text": subtitle, "font": {"size": 13}},
            "font": {"size": 19},
            "x": 0.0,
            "xref": "container",
            "xanchor": "left",
            "y": 1.0,
            "yref": "container",
            "yanchor": "top",
            "pad": {"t": 16, "l": 8},
        },
        font={"family": FONT, "size": 13, "color": "#22262b"},
        paper_bgcolor="#ffffff",
        plot_bgcolor="rgba(0,0,0,0)",
        height=height_px,
        margin={"l": 64, "r": 24, "t": 84, "b": 108},
        hoverlabel={"align": "left", "font": {"family": FONT, "size": 12}},
        hovermode="closest",
        legend={
            "orientation": "h",
            "x": 0.0,
            "xanchor": "left",
            "y": 0.0,
            "yref": "container",
            "yanchor": "bottom",
        },
        xaxis=axis,
        yaxis=axis,
    )
    return figure


def note_figure(title: str, note: str) -> go.Figure:
    """A figure that only says why there is nothing to draw."""
    figure = new_figure(title, height_px=220)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    figure.add_annotation(
        text=note, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False, font={"size": 14}
    )
    return figure


def axis_title(title: str, unit: str) -> str:
    """A title with the unit behind it, if there is one."""
    return f"{title} [{unit}]" if unit else title


def cost_axis(values: Sequence[float], title: str) -> dict[str, Any]:
    """Layout of an axis over positive costs: linear, or logarithmic when the range asks for it."""
    low, high = min(values), max(values)
    is_log = low > 0.0 and high / low >= _LOG_FROM
    axis: dict[str, Any] = {
        "title": {"text": f"{title}, log scale" if is_log else title},
        "exponentformat": "none",  # the unit stands in the title: no "400µ" ms beside it
    }
    if is_log:
        axis |= {"type": "log", "tickformat": "~g", "minor": {"showgrid": False}}
        axis["dtick"] = "D2"
    elif 0.0 < low < 0.7 * high or low == high:
        axis["rangemode"] = "tozero"
    return axis
