"""Marks for what was trained longer than the search's trials: refined and validated ones.

They lie beside the front, never on it: values of different training are not compared.
"""

from collections.abc import Sequence

import plotly.graph_objects as go

from autocompress.report.findings import cost_of, measured
from autocompress.report.hover import hover_text
from autocompress.report.plane import REFINED, VALIDATED, Plane
from autocompress.report.theme import PURPLE
from autocompress.run_record import TrialRecord


def add_trained(figure: go.Figure, plane: Plane) -> None:
    """Stars for refined trials, triangles for validated ones, each joined to its proxy's point."""
    marks = (
        (REFINED, "refined: trained in full", "star", plane.run.refined),
        (VALIDATED, "trained longer by validate", "triangle-up-open", plane.run.validated),
    )
    for kind, name, symbol, trials in marks:
        shown = [t for t in trials if t.number in plane.x and cost_of(t, plane.cost) is not None]
        if shown:
            _add_ways(figure, plane, shown, kind)
            _add_marks(figure, plane, shown, kind, name, symbol)


def _place(plane: Plane, trial: TrialRecord) -> tuple[float, float]:
    cost = cost_of(trial, plane.cost)
    assert cost is not None
    return cost / plane.factor, 100 * measured(trial).accuracy


def _add_ways(figure: go.Figure, plane: Plane, trials: Sequence[TrialRecord], kind: str) -> None:
    """Thin lines from each proxy's point to where training took it; None lifts the pen."""
    xs: list[float | None] = []
    ys: list[float | None] = []
    numbers: list[int] = []
    for trial in trials:
        x, y = _place(plane, trial)
        xs += [plane.x[trial.number], x, None]
        ys += [plane.y[trial.number], y, None]
        numbers += [trial.number] * 3
    figure.add_scatter(
        x=xs,
        y=ys,
        mode="lines",
        line={"color": PURPLE, "width": 1, "dash": "dot"},
        hoverinfo="skip",
        showlegend=False,
        customdata=numbers,
        meta=kind,
    )


def _add_marks(
    figure: go.Figure,
    plane: Plane,
    trials: Sequence[TrialRecord],
    kind: str,
    name: str,
    symbol: str,
) -> None:
    places = [_place(plane, trial) for trial in trials]
    figure.add_scatter(
        x=[x for x, _ in places],
        y=[y for _, y in places],
        mode="markers",
        name=name,
        marker={"size": 13, "symbol": symbol, "color": PURPLE, "line": {"width": 1.5}},
        hovertext=[hover_text(plane.run, trial) for trial in trials],
        hoverinfo="text",
        customdata=[trial.number for trial in trials],
        meta=kind,
    )
