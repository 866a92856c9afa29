"""Accuracy and two costs at once, as a picture that can be turned."""

import html
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from autocompress.objective import Objective
from autocompress.report.axes import TRIALS, Plane, place_trials, texts_of
from autocompress.report.theme import (
    BLUE,
    GREEN,
    GREY,
    VERMILLION,
    axis_title,
    cost_axis,
    new_figure,
    note_figure,
)
from autocompress.run_record import RunRecord, TrialRecord


def has_two_costs(run: RunRecord) -> bool:
    """Whether a run has two costs at least, and measured them."""
    return sum(objective.is_cost for objective in run.objectives) >= 2 and bool(run.complete)


def _axes(run: RunRecord) -> tuple[Objective, Objective]:
    """Two costs, objectives of the run first: more cannot be drawn at once."""
    first, second, *_ = sorted(run.shown_costs, key=lambda cost: cost not in run.objectives)
    return first, second


def cube_figure(run: RunRecord, *, has_texts: bool = True) -> go.Figure:
    """All complete trials by the first two costs and accuracy; the front solid, others faint.

    Args:
        run: The run.
        has_texts: Whether points carry what a pointer over them shows.
    """
    across, deep = _axes(run)
    first = place_trials(run, across, has_texts=has_texts)
    second = place_trials(run, deep)
    trials = [t for t in first.trials if t.number in second.x]
    if not trials:
        why = f"No finished trial has measured {across.name} and {deep.name}."
        return note_figure("Nothing to turn", why)
    n_front, n_axes = len(first.on_front), len(run.objectives)
    title = (
        f"{n_front} of {len(trials)} measured points are on the front of "
        f"{'three' if n_axes == 3 else n_axes} objectives"
    )
    figure = new_figure(html.escape(title), "Drag to turn it, scroll to come closer", 600)
    groups = _groups(trials, first.on_front)
    for name, (color, symbol, size_px, members) in groups.items():
        _add_points(figure, first, second, members, name, color, symbol, size_px)
    axes = {
        "xaxis": _axis(first.xs(trials), axis_title(across.name, first.unit)),
        "yaxis": _axis(second.xs(trials), axis_title(deep.name, second.unit)),
        "zaxis": {**_axis([], "accuracy"), "ticksuffix": " %"},
    }
    # seen from where small and fast is near: what is good stands in front and above
    camera = {"eye": {"x": -1.7, "y": -1.5, "z": 0.7}}
    figure.update_layout(scene={**axes, "camera": camera}, margin={"l": 0, "r": 0, "b": 48})
    return figure


def _groups(
    trials: Sequence[TrialRecord], on_front: frozenset[int]
) -> dict[str, tuple[str, str, int, list[TrialRecord]]]:
    searched = [t for t in trials if t.role == "search"]
    return {
        "dominated trial": (GREY, "circle", 3, [t for t in searched if t.number not in on_front]),
        "on the front": (BLUE, "circle", 6, [t for t in searched if t.number in on_front]),
        "control": (VERMILLION, "diamond", 5, [t for t in trials if t.role == "control"]),
        "baseline": (GREEN, "square", 6, [t for t in trials if t.role == "baseline"]),
    }


def _add_points(
    figure: go.Figure,
    first: Plane,
    second: Plane,
    trials: Sequence[TrialRecord],
    name: str,
    color: str,
    symbol: str,
    size_px: int,
) -> None:
    if trials:
        figure.add_scatter3d(
            x=first.xs(trials),
            y=second.xs(trials),
            z=first.ys(trials),
            mode="markers",
            name=name,
            marker={"size": size_px, "color": color, "symbol": symbol},
            hovertext=texts_of(first, trials),
            hoverinfo="text",
            customdata=[t.number for t in trials],
            meta=TRIALS,
        )


def _axis(values: Sequence[float], title: str) -> dict[str, Any]:
    axis = cost_axis(values, title) if values else {"title": {"text": title}}
    if axis.get("type") == "log":
        axis["title"] = {"text": f"{title}, log"}
    axis.pop("minor", None)  # no such thing in three dimensions
    return {**axis, "gridcolor": "rgba(128,128,128,0.4)", "zeroline": False}
