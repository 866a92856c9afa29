"""The front as a picture: accuracy against one cost, every point measured."""

import html
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

import plotly.graph_objects as go

from autocompress.objective import OBJECTIVES
from autocompress.report.axes import (
    TRIALS,
    Plane,
    add_trained,
    place_trials,
    reach,
    steps_of,
    texts_of,
    view_floor,
)
from autocompress.report.findings import (
    MAX_DROP,
    cheapest_within,
    headline,
    measured,
    penalty_curve,
)
from autocompress.report.hover import short_name
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

# A common width of the plotting area; on a narrower screen names are switched off altogether.
_AREA_PX: Final = (820.0, 380.0)
_CHAR_PX: Final = 6.4
_LINE_PX: Final = 15.0
_GAP_PX: Final = 6.0
_POINT_PX: Final = 5.0

# Plotly's textposition -> direction of the box seen from its point. Cheaper and more accurate lies
# up and left, where the front is; so names go down and right first.
_DIRECTIONS: Final = {
    "bottom right": (1, -1),
    "middle right": (1, 0),
    "bottom center": (0, -1),
    "top right": (1, 1),
    "bottom left": (-1, -1),
    "middle left": (-1, 0),
    "top center": (0, 1),
    "top left": (-1, 1),
}
Box = tuple[float, float, float, float]


def place_labels(
    labels: Sequence[str],
    anchors: Sequence[tuple[float, float]],
    obstacles: Sequence[tuple[float, float]],
) -> list[str | None]:
    """Choose a side for each label, greedily in the order given.

    Args:
        labels: Texts.
        anchors: Their points, both coordinates in [0, 1] of the plotting area, y upwards.
        obstacles: Points that no label may cover; may hold the anchors.

    Returns:
        Plotly's `textposition` per label; None where every side is taken.
    """
    width_px, height_px = _AREA_PX
    taken: list[Box] = [
        (x * width_px - _POINT_PX, y * height_px - _POINT_PX,
         x * width_px + _POINT_PX, y * height_px + _POINT_PX)
        for x, y in obstacles
    ]  # fmt: skip
    places: list[str | None] = []
    for label, (x, y) in zip(labels, anchors, strict=True):
        place = None
        for position, direction in _DIRECTIONS.items():
            box = _box(label, x * width_px, y * height_px, direction)
            if _is_inside(box) and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                place = position
                break
        places.append(place)
    return places


def along_steps(corners: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points along a step line (right, then up), close enough that no label fits between them.

    Args:
        corners: Points of the line from left to right, coordinates in [0, 1].
    """
    points: list[tuple[float, float]] = []
    for (x0, y0), (x1, y1) in pairwise(corners):
        n_right = math.ceil((x1 - x0) * _AREA_PX[0] / _LINE_PX)
        n_up = math.ceil((y1 - y0) * _AREA_PX[1] / _LINE_PX)
        points += [(x0 + (x1 - x0) * i / n_right, y0) for i in range(n_right)]
        points += [(x1, y0 + (y1 - y0) * i / n_up) for i in range(n_up)]
    return points


def _box(label: str, x: float, y: float, direction: tuple[int, int]) -> Box:
    width, height = _CHAR_PX * len(label), _LINE_PX
    left = x - width / 2 + direction[0] * (width / 2 + _GAP_PX)
    bottom = y - height / 2 + direction[1] * (height / 2 + _GAP_PX)
    return left, bottom, left + width, bottom + height


def _is_inside(box: Box) -> bool:
    return box[0] >= 0 and box[1] >= 0 and box[2] <= _AREA_PX[0] and box[3] <= _AREA_PX[1]


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def front_figure(run: RunRecord, cost: str, *, has_texts: bool = True) -> go.Figure:
    """Accuracy against one cost: every complete trial, the front, the controls, the baseline.

    The step line joins the points that nobody beats on these two axes alone; members of the front
    that lie beside it earn their place by another objective.

    Args:
        run: The run; failed and running trials are not drawn.
        cost: Horizontal axis, by its name.
        has_texts: Whether points carry what a pointer over them shows.
    """
    objective = OBJECTIVES[cost]
    plane = place_trials(run, objective, has_texts=has_texts)
    title = html.escape(headline(run, objective))
    if not plane.trials:
        why = f"No finished trial has a measured {cost}." if run.trials else "No trial yet."
        return note_figure(title, why)
    floor_pct, n_hidden = view_floor(plane)
    below = "1 trial" if n_hidden == 1 else f"{n_hidden} trials"
    verb = "is" if n_hidden == 1 else "are"
    hidden = f"{below} below {floor_pct:.0f} % {verb} out of view; double-click shows all"
    figure = new_figure(title, hidden if n_hidden else "Each point is one measured candidate")
    visible = [t for t in plane.trials if plane.y[t.number] >= floor_pct]
    figure.update_xaxes(cost_axis(plane.xs(visible), plane.axis_title))
    figure.update_yaxes(title_text="accuracy, validation", ticksuffix=" %")
    if n_hidden:
        _set_view(figure, plane.xs(visible), (floor_pct, max(plane.y.values())))
    steps = steps_of(plane)
    _add_curve(figure, plane)
    _add_step_line(figure, plane, steps)
    _add_searched(figure, plane)
    add_trained(figure, plane)
    _add_named(figure, plane, visible, steps)
    _mark_headline(figure, plane)
    return figure


def _set_view(figure: go.Figure, costs: list[float], y_range: tuple[float, float]) -> None:
    pad = 0.05 * (y_range[1] - y_range[0])
    figure.update_yaxes(range=[y_range[0], y_range[1] + pad])
    if figure.layout.xaxis.type == "log":
        ends = [math.log10(min(costs)), math.log10(max(costs))]
        pad = 0.06 * (ends[1] - ends[0])
        figure.update_xaxes(range=[ends[0] - pad, ends[1] + pad])


def _add_step_line(figure: go.Figure, plane: Plane, steps: Sequence[TrialRecord]) -> None:
    figure.add_scatter(
        x=plane.xs(steps),
        y=plane.ys(steps),
        mode="lines",
        name="best accuracy up to this cost",
        line={"color": BLUE, "width": 2, "shape": "hv"},
        hoverinfo="skip",
        customdata=[t.number for t in steps],
        meta=TRIALS,
    )


def _add_curve(figure: go.Figure, plane: Plane) -> None:
    """What one rate penalty for all layers gives: the search is credited with what lies beyond."""
    curve = [t for t in penalty_curve(plane.run) if t.number in plane.y]
    if plane.cost.noise is not None or len(curve) < 2:
        return
    figure.add_scatter(
        x=plane.xs(curve),
        y=plane.ys(curve),
        mode="lines",
        name="one rate penalty, no search",
        line={"color": VERMILLION, "width": 1.5, "dash": "dot"},
        hoverinfo="skip",
    )


def _add_searched(figure: go.Figure, plane: Plane) -> None:
    """Searched trials: those on the front solid, the others faint, what breaks a limit crossed."""
    searched = [t for t in plane.trials if t.role == "search"]
    broken = [t for t in searched if not plane.run.is_feasible(t)]
    kept = [t for t in searched if plane.run.is_feasible(t)]
    dominated = [t for t in kept if t.number not in plane.on_front]
    solid = [t for t in searched if t.number in plane.on_front]
    faint = {"size": 6, "color": GREY, "opacity": 0.5}
    strong = {"size": 10, "color": BLUE, "line": {"width": 1, "color": "#ffffff"}}
    _add_markers(figure, plane, dominated, "dominated trial", faint)
    _add_markers(figure, plane, broken, "breaks a limit", {**faint, "symbol": "x"})
    bars = {
        "array": [reach(plane, t, up=True) for t in solid],
        "arrayminus": [reach(plane, t, up=False) for t in solid],
        **{"symmetric": False, "thickness": 1, "width": 0, "color": BLUE},
    }
    extra = {"error_x": bars} if plane.cost.noise is not None else {}
    _add_markers(figure, plane, solid, "on the front", strong, **extra)


def _add_named(
    figure: go.Figure,
    plane: Plane,
    visible: Sequence[TrialRecord],
    steps: Sequence[TrialRecord],
) -> None:
    """Baseline and controls; those in the first view have names where there is room."""
    named = [t for t in plane.trials if t.role != "search"]
    positions = _label_positions(figure, plane, visible, steps)
    controls = [t for t in named if t.role == "control"]
    alike = [t for t in controls if measured(t).fidelity >= plane.run.fidelity]
    untuned = [t for t in controls if measured(t).fidelity < plane.run.fidelity]
    for title, color, symbol, group in (
        ("control (open: dominated)", VERMILLION, "diamond", alike),
        ("control without tuning", VERMILLION, "x-thin", untuned),
        ("baseline", GREEN, "square", [t for t in named if t.role == "baseline"]),
    ):
        dominated_symbol = symbol if symbol == "x-thin" else f"{symbol}-open"
        symbols = [symbol if t.number in plane.on_front else dominated_symbol for t in group]
        _add_markers(
            figure,
            plane,
            group,
            title,
            {"size": 11, "color": color, "symbol": symbols, "line": {"width": 2, "color": color}},
            mode="markers+text",
            text=[short_name(t) if positions.get(t.number) else "" for t in group],
            textposition=[positions.get(t.number) or "bottom right" for t in group],
            textfont={"size": 11},
            cliponaxis=False,
        )


def _add_markers(
    figure: go.Figure,
    plane: Plane,
    trials: Sequence[TrialRecord],
    name: str,
    marker: dict[str, Any],
    **trace: Any,
) -> None:
    if trials:
        figure.add_scatter(
            x=plane.xs(trials),
            y=plane.ys(trials),
            name=name,
            marker=marker,
            hovertext=texts_of(plane, trials),
            hoverinfo="text",
            customdata=[t.number for t in trials],
            meta=TRIALS,
            **{"mode": "markers", **trace},
        )


def _label_positions(
    figure: go.Figure,
    plane: Plane,
    visible: Sequence[TrialRecord],
    steps: Sequence[TrialRecord],
) -> dict[int, str | None]:
    """Trial number -> side of its name, for visible baseline and controls."""
    is_log = figure.layout.xaxis.type == "log"
    xs = {t.number: math.log10(plane.x[t.number]) if is_log else plane.x[t.number] for t in visible}
    left = 0.0 if figure.layout.xaxis.rangemode == "tozero" else min(xs.values())
    width = (max(xs.values()) - left) or 1.0
    low = min(plane.ys(visible))
    height = (max(plane.ys(visible)) - low) or 1.0
    places = {
        t.number: (
            0.05 + 0.9 * (xs[t.number] - left) / width,
            0.05 + 0.9 * (plane.y[t.number] - low) / height,
        )
        for t in visible
    }
    corners = [places[t.number] for t in steps if t.number in places]
    named = [t for t in visible if t.role != "search"]
    chosen = place_labels(
        [html.unescape(short_name(t)) for t in named],
        [places[t.number] for t in named],
        [*places.values(), *along_steps(corners)],
    )
    return {t.number: position for t, position in zip(named, chosen, strict=True)}


def _mark_headline(figure: go.Figure, plane: Plane) -> None:
    """Ring the point that the title speaks of, and draw the line of one point's loss."""
    if plane.run.baseline is None:
        return
    figure.add_hline(
        y=100 * (measured(plane.run.baseline).accuracy - MAX_DROP),
        line={"color": GREY, "width": 1, "dash": "dot"},
        annotation={"text": "baseline − 1 pt", "font": {"size": 11}},
        annotation_position="top left",
    )
    trial = cheapest_within(plane.run, plane.run.feasible, plane.cost)
    if trial is not None and trial.number in plane.x:
        figure.add_scatter(
            x=plane.xs([trial]),
            y=plane.ys([trial]),
            mode="markers",
            name="the point of the title",
            marker={"size": 20, "symbol": "circle-open", "line": {"width": 2}, "color": GREEN},
            hoverinfo="skip",
            customdata=[trial.number],
            meta=TRIALS,
        )
