"""Accuracy, size and latency at once, as a picture that can be turned."""

import html
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from autocompress.objective import OBJECTIVES
from autocompress.report.plane import TRIALS, Plane, place_trials, texts_of
from autocompress.report.theme import (
    BLUE,
    GREEN,
    GREY,
    VERMILLION,
    cost_axis,
    new_figure,
    note_figure,
)
from autocompress.run_record import RunRecord, TrialRecord


def has_three_objectives(run: RunRecord) -> bool:
    """Whether accuracy, size and latency are all objectives of a run, and measured."""
    names = {objective.name for objective in run.objectives}
    return {"size", "latency"} <= names and bool(run.complete)


def cube_figure(run: RunRecord, *, has_texts: bool = True) -> go.Figure:
    """All complete trials by size, latency and accuracy; the front solid, the others faint.

    Args:
        run: The run.
        has_texts: Whether points carry what a pointer over them shows.
    """
    sizes = place_trials(run, OBJECTIVES["size"], has_texts=has_texts)
    times = place_trials(run, OBJECTIVES["latency"])
    trials = [t for t in sizes.trials if t.number in times.x]
    if not trials:
        return note_figure("Nothing to turn", "No finished trial has measured size and latency.")
    n_front = len(sizes.on_front)
    title = f"{n_front} of {len(trials)} measured points are on the front of three objectives"
    figure = new_figure(html.escape(title), "Drag to turn it, scroll to come closer", 600)
    groups = _groups(trials, sizes.on_front)
    for name, (color, symbol, size_px, members) in groups.items():
        _add_points(figure, sizes, times, members, name, color, symbol, size_px)
    axes = {
        "xaxis": _axis(sizes.xs(trials), f"size [{sizes.unit}]"),
        "yaxis": _axis(times.xs(trials), f"latency [{times.unit}]"),
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
        "beaten trial": (GREY, "circle", 3, [t for t in searched if t.number not in on_front]),
        "on the front": (BLUE, "circle", 6, [t for t in searched if t.number in on_front]),
        "control": (VERMILLION, "diamond", 5, [t for t in trials if t.role == "control"]),
        "baseline": (GREEN, "square", 6, [t for t in trials if t.role == "baseline"]),
    }


def _add_points(
    figure: go.Figure,
    sizes: Plane,
    times: Plane,
    trials: Sequence[TrialRecord],
    name: str,
    color: str,
    symbol: str,
    size_px: int,
) -> None:
    if trials:
        figure.add_scatter3d(
            x=sizes.xs(trials),
            y=times.xs(trials),
            z=sizes.ys(trials),
            mode="markers",
            name=name,
            marker={"size": size_px, "color": color, "symbol": symbol},
            hovertext=texts_of(sizes, trials),
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
