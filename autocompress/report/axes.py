"""Measured trials placed on two axes: accuracy and one cost."""

import dataclasses
from collections.abc import Sequence
from typing import Final

import plotly.graph_objects as go

from autocompress.objective import Objective
from autocompress.report.findings import cost_of, measured, range_of
from autocompress.report.hover import hover_text
from autocompress.report.theme import PURPLE, axis_title
from autocompress.run_record import RunRecord, TrialRecord

TRIALS: Final = "trials"
"""`meta` of traces whose points are trials, named by number in `customdata`: the page fills in what
a pointer shows, and filters them."""
REFINED: Final = "refined"
VALIDATED: Final = "validated"
"""`meta` of traces that show trials again, trained longer: they keep texts of their own, and the
page filters them by the figures that it holds under these names."""

# Points further below the baseline than this start outside the view when they would squeeze it.
_VIEW_DROP: Final = 0.10
# A view that shows fewer members of the front than this would hide the finding.
_MIN_IN_VIEW: Final = 3


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """Measured trials placed on the two axes.

    Attributes:
        run: The run.
        has_texts: Whether figures carry what a pointer shows; the page has it by trial number.
        cost: The horizontal objective.
        trials: Complete trials that have this cost.
        axis_title: Title of the horizontal axis, with its unit.
        unit: That unit.
        factor: What a cost is divided by to get that unit.
        x: Trial number -> cost in that unit.
        y: Trial number -> accuracy in percent.
        on_front: Numbers of the front's members.
    """

    run: RunRecord
    has_texts: bool
    cost: Objective
    trials: tuple[TrialRecord, ...]
    axis_title: str
    unit: str
    factor: float
    x: dict[int, float]
    y: dict[int, float]
    on_front: frozenset[int]

    def xs(self, trials: Sequence[TrialRecord]) -> list[float]:
        """Costs of trials, in the axis' unit."""
        return [self.x[t.number] for t in trials]

    def ys(self, trials: Sequence[TrialRecord]) -> list[float]:
        """Accuracies of trials, in percent."""
        return [self.y[t.number] for t in trials]


def place_trials(run: RunRecord, cost: Objective, *, has_texts: bool = True) -> Plane:
    """Place every complete trial that has this cost."""
    costs = {t.number: cost_of(t, cost) for t in run.complete}
    trials = tuple(t for t in run.complete if costs[t.number] is not None)
    largest = max((c for c in costs.values() if c is not None), default=0.0)
    factor, unit = cost.quantity.axis_unit(largest)
    return Plane(
        run=run,
        has_texts=has_texts,
        cost=cost,
        trials=trials,
        axis_title=axis_title(cost.axis, unit),
        unit=unit,
        factor=factor,
        x={number: c / factor for number, c in costs.items() if c is not None},
        y={t.number: 100 * measured(t).accuracy for t in trials},
        on_front=frozenset(t.number for t in run.front()),
    )


def view_floor(plane: Plane) -> tuple[float, int]:
    """Lowest accuracy in the first view, in percent, and how many trials lie below it."""
    if plane.run.baseline is None:
        return 0.0, 0
    floor_pct = 100 * (measured(plane.run.baseline).accuracy - _VIEW_DROP)
    n_below = sum(y < floor_pct for y in plane.y.values())
    n_inside = sum(y >= floor_pct for number, y in plane.y.items() if number in plane.on_front)
    return (floor_pct, n_below) if n_inside >= _MIN_IN_VIEW else (0.0, 0)


def steps_of(plane: Plane) -> list[TrialRecord]:
    """What nobody beats on these two axes, cheapest first."""
    steps: list[TrialRecord] = []
    placed = {t.number for t in plane.trials}
    rivals = [t for t in plane.run.feasible if t.number in placed]
    for trial in sorted(rivals, key=lambda t: (plane.x[t.number], -plane.y[t.number])):
        if not steps or plane.y[trial.number] > plane.y[steps[-1].number]:
            steps.append(trial)
    return steps


def reach(plane: Plane, trial: TrialRecord, *, up: bool) -> float:
    """How far the interval of a cost reaches, in the axis' unit; half its spread without one."""
    low, high = range_of(trial, plane.cost)
    middle = plane.x[trial.number]
    return max(0.0, high / plane.factor - middle if up else middle - low / plane.factor)


def texts_of(plane: Plane, trials: Sequence[TrialRecord]) -> list[str] | None:
    """What a pointer over each trial shows; None where that is known from elsewhere."""
    return [hover_text(plane.run, t) for t in trials] if plane.has_texts else None


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
