"""Fronts of several runs in one picture, by one cost."""

import html
from typing import Any, Final

import plotly.graph_objects as go

from autocompress.objective import OBJECTIVES, Objective
from autocompress.report.compare import Comparison
from autocompress.report.findings import MAX_DROP, cost_of, gain, measured
from autocompress.report.hover import hover_text
from autocompress.report.theme import BLUE, GREEN, VERMILLION, axis_title, cost_axis, new_figure
from autocompress.report.wording import format_times, shorten
from autocompress.run_record import RunRecord, TrialRecord

# Okabe & Ito (2008), darkest first; a shape and a dash besides, for print without colours.
_STYLES: Final = (
    (BLUE, "circle", "solid"),
    (VERMILLION, "diamond", "dash"),
    (GREEN, "square", "dot"),
    ("#CC79A7", "triangle-up", "dashdot"),
    ("#E69F00", "triangle-down", "longdash"),
    ("#56B4E9", "cross", "longdashdot"),
)
_NAME_CHARS: Final = 40
# Points that lose more than this share of accuracy would squeeze those that anybody ships.
_VIEW_DROP: Final = 0.10


def fronts_figure(comparison: Comparison, cost: str) -> go.Figure:
    """The best accuracy of each run up to a cost, one line per run.

    A noisy cost, such as latency, is the ratio to the run's own baseline, measured in turns with
    each candidate: milliseconds of different hours do not compare. The figure is for runs whose
    accuracies are comparable.

    Args:
        comparison: The runs.
        cost: Horizontal axis, by its name.
    """
    row = OBJECTIVES[cost]
    lines = [_Line(run, row) for run in comparison.runs]
    every = [x for line in lines for x in line.costs]
    factor, unit = 1.0, "times the baseline's"
    if row.noise is None:
        factor, unit = row.quantity.axis_unit(max(every, default=0.0))
    axis = axis_title(row.axis, unit)
    figure = new_figure(_title(comparison, row), "Best accuracy up to a cost, per run", 480)
    for line, name, style in zip(lines, comparison.names, _STYLES, strict=False):
        _draw(figure, line, html.escape(shorten(name, _NAME_CHARS)), style, factor)
    floor = min((line.floor for line in lines), default=0.0)
    visible = [(x, y) for line in lines for x, y in line.points if y >= floor]
    figure.update_xaxes(cost_axis([x / factor for x, _ in visible] or [1.0], axis))
    figure.update_yaxes(title_text="accuracy, validation", ticksuffix=" %")
    if len(visible) < len(every):
        n_hidden = len(every) - len(visible)
        note = "1 point" if n_hidden == 1 else f"{n_hidden} points"
        note += f" below {floor:.0f} % out of view; double-click shows all"
        figure.update_layout(title_subtitle_text=note)
        high = max(y for _, y in visible)
        figure.update_yaxes(range=[floor, high + 0.05 * (high - floor)])
    return figure


class _Line:
    """What nobody of one run beats on two axes: costs, accuracies in percent, trials."""

    def __init__(self, run: RunRecord, cost: Objective) -> None:
        placed = [(x, t) for t in run.feasible if (x := _place(run, t, cost)) is not None]
        self.run = run
        self.trials: list[TrialRecord] = []
        self.points: list[tuple[float, float]] = []
        for x, trial in sorted(placed, key=lambda p: (p[0], -measured(p[1]).accuracy)):
            y = 100 * measured(trial).accuracy
            if not self.points or y > self.points[-1][1]:
                self.points.append((x, y))
                self.trials.append(trial)
        base = max((measured(t).accuracy for _, t in placed), default=0.0)
        self.floor = 100 * (base - _VIEW_DROP)

    @property
    def costs(self) -> list[float]:
        return [x for x, _ in self.points]


def _place(run: RunRecord, trial: TrialRecord, cost: Objective) -> float | None:
    if cost.noise is None:
        return cost_of(trial, cost)
    ratio = gain(run, trial, cost)
    if ratio is None:  # the baseline was timed against nothing but itself
        return 1.0 if trial.role == "baseline" and cost_of(trial, cost) else None
    return 1.0 / ratio


def _draw(
    figure: go.Figure, line: _Line, name: str, style: tuple[str, str, str], factor: float
) -> None:
    color, symbol, dash = style
    marker: dict[str, Any] = {"size": 9, "symbol": symbol, "color": color}
    if line.points:
        figure.add_scatter(
            x=[x / factor for x in line.costs],
            y=[y for _, y in line.points],
            mode="lines+markers",
            name=name,
            line={"color": color, "width": 2, "shape": "hv", "dash": dash},
            marker=marker,
            hovertext=[f"<b>{name}</b><br>{hover_text(line.run, t)}" for t in line.trials],
            hoverinfo="text",
        )


def _title(comparison: Comparison, cost: Objective) -> str:
    """The finding within one point, or what the picture shows where that is not comparable."""
    row = next((r for r in comparison.at_drops if r.cost == cost and r.max_drop == MAX_DROP), None)
    if row is None or not row.is_comparable:
        return f"Accuracy against {cost.name}, {len(comparison.runs)} runs"
    if row.winner is None:
        if all(gain is None for gain in row.gains):
            return "No run has a point within 1 pt"
        measurably = "" if cost.noise is None else "measurably "
        return f"Within 1 pt no run's point is {measurably}{cost.better} than every other's"
    name = html.escape(shorten(comparison.names[row.winner], _NAME_CHARS))
    own = row.gains[row.winner]
    rest = [g for place, g in enumerate(row.gains) if place != row.winner and g is not None]
    if own is None or not rest:
        return f"Only {name} has a point within 1 pt"
    lead = format_times(own / max(rest))
    return f"Within 1 pt the point of {name} is {lead} {cost.better} than the next run's"
