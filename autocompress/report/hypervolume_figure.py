"""The hypervolume over trials: is the search still finding, and more than the controls hold?"""

import html

import plotly.graph_objects as go

from autocompress.report.tables import controls_hypervolume, hypervolume_history
from autocompress.report.theme import BLUE, VERMILLION, new_figure, note_figure
from autocompress.report.wording import shorten
from autocompress.run_record import RunRecord


def hypervolume_figure(run: RunRecord) -> go.Figure:
    """Hypervolume (see `tables.hypervolume_history`) after each trial, beside the controls' own."""
    history = hypervolume_history(run)
    if history.empty:
        return note_figure("No hypervolume yet", "It is counted from the baseline on.")
    final, controls = float(history["hypervolume"].iloc[-1]), controls_hypervolume(run)
    title = f"The hypervolume is {final:.2f}"
    if controls is not None:
        title += f", that of the controls alone {controls:.2f}"
    figure = new_figure(
        title, "In halvings of the cost, mean over accuracies near the baseline's", 400
    )
    figure.update_layout(margin_b=88)
    volumes = history["hypervolume"]
    gains = volumes.diff().fillna(volumes)
    texts = [
        f"<b>{html.escape(shorten(label, 40))}</b><br>{value:.3f} ({change:+.3f})"
        for label, value, change in zip(history["label"], volumes, gains, strict=True)
    ]
    figure.add_scatter(
        x=history["trial"].tolist(),
        y=volumes.tolist(),
        mode="lines+markers",
        name="all trials so far",
        line={"color": BLUE, "width": 2.5, "shape": "hv"},
        marker={"size": [8 if g > 0 else 0 for g in gains], "color": BLUE, "line": {"width": 0}},
        hovertext=texts,
        hoverinfo="text",
        customdata=history["trial"].tolist(),
    )
    if controls is not None:
        last = max(int(history["trial"].iloc[-1]), 1)
        figure.add_scatter(
            x=[0, last],
            y=[controls] * 2,
            mode="lines",
            name="best of the controls",
            line={"color": VERMILLION, "width": 2, "dash": "dash"},
            hovertext=f"controls alone: {controls:.3f}",
            hoverinfo="text",
        )
    figure.update_xaxes(title_text="trial number", tickformat="d", rangemode="tozero")
    if len(history) <= 10:
        figure.update_xaxes(dtick=1)
    figure.update_yaxes(title_text="hypervolume")
    return figure
