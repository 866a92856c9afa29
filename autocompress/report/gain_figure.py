"""The cheapest points of search and controls at equal accuracy, side by side."""

import html
from collections.abc import Sequence
from typing import Final

import plotly.graph_objects as go

from autocompress.report.findings import MAX_DROP
from autocompress.report.search_gain import GainAtDrop, Spread
from autocompress.report.tables import controls_hypervolume, hypervolume_history
from autocompress.report.theme import (
    BLUE,
    VERMILLION,
    axis_title,
    cost_axis,
    new_figure,
    note_figure,
)
from autocompress.report.wording import format_gain, shorten
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


_OFFSET: Final = 0.11


def gain_figure(rows: Sequence[GainAtDrop], seeds: Sequence[int | None]) -> go.Figure:
    """Best cost by allowed drop: faint dots are single runs, marks their means.

    Bars are the standard deviation over seeds; one run has none.

    Args:
        rows: One cost at several drops, as `search_gain` orders them.
        seeds: Of the runs whose values the rows hold.
    """
    cost = rows[0].cost
    values = [value for row in rows for side in (row.search, row.controls) for value in side.known]
    if not values:
        return note_figure(
            f"No point to compare by {cost.name}", "None loses as little as the largest drop here."
        )
    factor, unit = cost.quantity.axis_unit(max(values))
    means = "mean and standard deviation" if len(seeds) > 1 else "one run"
    figure = new_figure(_title(rows), f"Cheapest point within each drop, {means}", 380)
    for name, color, symbol, shift, sides in (
        ("search", BLUE, "circle", -_OFFSET, [row.search for row in rows]),
        ("controls", VERMILLION, "diamond", _OFFSET, [row.controls for row in rows]),
    ):
        style = {"color": color, "symbol": symbol}
        if len(seeds) > 1:
            _add_runs(figure, name, style, shift, sides, seeds, factor)
        _add_means(figure, name, style, shift, sides, factor, unit)
    figure.update_yaxes(cost_axis([v / factor for v in values], axis_title(cost.lowest, unit)))
    figure.update_xaxes(
        title_text="allowed loss of accuracy",
        tickvals=list(range(len(rows))),
        ticktext=[drop_name(row.max_drop) for row in rows],
        range=[-0.5, len(rows) - 0.5],
        showgrid=False,
    )
    figure.update_layout(margin_b=96)
    return figure


def drop_name(max_drop: float) -> str:
    """An allowed drop in words: `none`, `0.5 pt`."""
    return f"{100 * max_drop:g} pt" if max_drop else "none"


def _title(rows: Sequence[GainAtDrop]) -> str:
    row = next((row for row in rows if row.max_drop == MAX_DROP), rows[-1])
    within = f"within {drop_name(row.max_drop)}"
    if row.ratio.mean is None:
        return f"No pair to compare {within}"
    words = format_gain(row.ratio.mean, row.cost) if row.is_clear else "no clear difference"
    return f"Search against controls {within}: {words}"


def _add_runs(
    figure: go.Figure,
    name: str,
    style: dict[str, str],
    shift: float,
    sides: Sequence[Spread],
    seeds: Sequence[int | None],
    factor: float,
) -> None:
    """A dot per run, a little beside its mean so that neither hides the other."""
    points = [
        (place + 1.8 * shift, value / factor, seed)
        for place, side in enumerate(sides)
        for value, seed in zip(side.values, seeds, strict=True)
        if value is not None
    ]
    figure.add_scatter(
        x=[x for x, _, _ in points],
        y=[y for _, y, _ in points],
        mode="markers",
        name=f"{name}, single runs",
        marker={**style, "size": 6, "opacity": 0.45},
        hovertext=[f"{name}, seed {html.escape(str(seed))}: {y:.4g}" for _, y, seed in points],
        hoverinfo="text",
    )


def _add_means(
    figure: go.Figure,
    name: str,
    style: dict[str, str],
    shift: float,
    sides: Sequence[Spread],
    factor: float,
    unit: str,
) -> None:
    points = [
        (place + shift, side.mean / factor, (side.deviation or 0.0) / factor, len(side.known))
        for place, side in enumerate(sides)
        if side.mean is not None
    ]
    figure.add_scatter(
        x=[x for x, *_ in points],
        y=[mean for _, mean, _, _ in points],
        error_y={"array": [deviation for _, _, deviation, _ in points], "color": style["color"]},
        mode="markers",
        name=name,
        marker={**style, "size": 11},
        hovertext=[
            f"{name}: {mean:.4g} {unit}" + (f" ± {deviation:.2g}, n = {n}" if n > 1 else "")
            for _, mean, deviation, n in points
        ],
        hoverinfo="text",
    )
