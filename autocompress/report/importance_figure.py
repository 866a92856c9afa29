"""Which knobs matter, as bars: rank correlation of each with every objective."""

import dataclasses
import html
import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Final

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from autocompress.objective import OBJECTIVES, Objective
from autocompress.report.theme import BLUE, GREEN, GREY, PURPLE, VERMILLION, new_figure, note_figure
from autocompress.report.wording import shorten
from autocompress.run_record import RunRecord
from autocompress.space.search_space import Knob
from autocompress.technique import TECHNIQUES

LEAST_TRIALS: Final = 20
"""With fewer trials chance alone gives correlations that look like findings."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """How the knobs of a run go together with one figure.

    Attributes:
        objective: The figure.
        n_trials: Tuned trials behind it, controls included.
        knobs: Knobs that had more than one level in them.
        rho: Spearman's rank correlation of each knob's level with the figure, in [-1, 1].
        chance: What |rho| of one knob that does nothing exceeds in 1 of 20 runs.
        chance_of_any: What the largest |rho| of as many such knobs exceeds in 1 of 20 runs.
    """

    objective: Objective
    n_trials: int
    knobs: tuple[Knob, ...]
    rho: tuple[float, ...]
    chance: float
    chance_of_any: float


def knob_importance(run: RunRecord, objective: Objective) -> Importance | None:
    """Rank every knob by how strongly a figure follows its level (Spearman 1904).

    A correlation, not a cause: a search moves knobs together, and one that is turned along with a
    strong one seems strong as well.

    Args:
        run: Its comparable trials count.
        objective: The figure.

    Returns:
        None with fewer than `LEAST_TRIALS` trials, or if the figure or every knob is constant.
    """
    names = [knob.name for knob in run.knobs]
    trials = [t for t in run.comparable if all(name in t.levels for name in names)]
    if len(trials) < LEAST_TRIALS:
        return None
    values = np.array([getattr(t.measurement, objective.field) for t in trials], dtype=np.float64)
    levels = np.array([[t.levels[name] for name in names] for t in trials], dtype=np.float64)
    moved = [k for k in range(levels.shape[1]) if np.ptp(levels[:, k]) > 0]
    if np.ptp(values) == 0 or not moved:
        return None
    ranks = _standard_ranks(levels[:, moved])  # (N, K)
    rho = ranks.T @ _standard_ranks(values[:, None])[:, 0] / len(trials)
    return Importance(
        objective=objective,
        n_trials=len(trials),
        knobs=tuple(run.knobs[k] for k in moved),
        rho=tuple(float(r) for r in rho),
        chance=_chance(len(trials), 1),
        chance_of_any=_chance(len(trials), len(moved)),
    )


def _chance(n_trials: int, n_knobs: int) -> float:
    """What the largest |rho| of knobs that do nothing exceeds in 1 of 20 runs (Šidák 1967).

    The rho of independent ranks is about normal with variance 1 / (N - 1).
    """
    tail = 1 - 0.95 ** (1 / n_knobs)
    return NormalDist().inv_cdf(1 - tail / 2) / math.sqrt(n_trials - 1)


def _standard_ranks(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks within each column, ties sharing theirs, with mean 0 and variance 1; same shape."""
    ranks = pd.DataFrame(columns).rank().to_numpy(dtype=np.float64)
    return np.asarray((ranks - ranks.mean(axis=0)) / ranks.std(axis=0))


# By the place of an objective in their table: so it looks the same in every run.
_STYLES: Final = (
    *((BLUE, "circle"), (VERMILLION, "diamond"), (GREEN, "square")),
    *((PURPLE, "triangle-up"), (GREY, "triangle-down")),
)
_MOST_ROWS: Final = 24
_ROW_PX: Final = 22


def importances(run: RunRecord) -> list[Importance]:
    """Importance of the knobs for every objective that tells them apart; empty with few trials."""
    found = (knob_importance(run, objective) for objective in run.objectives)
    return [importance for importance in found if importance is not None]


def importance_figure(found: Sequence[Importance]) -> go.Figure:
    """Knobs by how strongly the figures follow them, strongest first, `_MOST_ROWS` at most."""
    if not found:
        why = f"It takes {LEAST_TRIALS} tuned trials whose figures differ."
        return note_figure("Too few trials to tell which knobs matter", why)
    knobs = _strongest(found)[:_MOST_ROWS]
    n_knobs = max(len(importance.knobs) for importance in found)
    shown = (
        f"the strongest {len(knobs)} of {n_knobs} knobs" if n_knobs > len(knobs) else "all knobs"
    )
    figure = new_figure(
        _title(found),
        f"Spearman's rank correlation with the level over {found[0].n_trials} trials, {shown}",
        height_px=210 + _ROW_PX * len(knobs),
    )
    names = [f"{TECHNIQUES[knob.kind].title}: {html.escape(knob.label)}" for knob in knobs]
    for importance in found:
        rho = dict(zip((k.name for k in importance.knobs), importance.rho, strict=True))
        _add_dots(figure, importance.objective, names, [rho.get(k.name) for k in knobs])
    chance = found[0].chance
    figure.add_vrect(x0=-chance, x1=chance, fillcolor=GREY, opacity=0.18, line_width=0)
    figure.update_xaxes(title_text="rank correlation", range=[-1.05, 1.05], zeroline=True)
    figure.update_xaxes(zerolinecolor=GREY)
    figure.update_yaxes(
        type="category",
        autorange="reversed",
        tickvals=names,
        ticktext=[
            html.escape(shorten(f"{TECHNIQUES[k.kind].title}: {k.label}", 38)) for k in knobs
        ],
        tickfont={"size": 11},
    )
    return figure


def importance_rows(run: RunRecord) -> tuple[list[str], list[list[str]]]:
    """The same as a table: headers, then a row for each knob, strongest first."""
    found = importances(run)
    headers = ["knob", *(importance.objective.name for importance in found)]
    tables = [dict(zip((k.name for k in i.knobs), i.rho, strict=True)) for i in found]
    rows = [
        [
            f"{TECHNIQUES[knob.kind].title}: {shorten(knob.label, 60)}",
            *(f"{table[knob.name]:+.2f}" if knob.name in table else "–" for table in tables),
        ]
        for knob in _strongest(found)
    ]
    return headers, rows


def _strongest(found: Sequence[Importance]) -> list[Knob]:
    """Knobs by their largest |rho| with any figure."""
    largest: dict[str, tuple[float, Knob]] = {}
    for importance in found:
        for knob, rho in zip(importance.knobs, importance.rho, strict=True):
            known = largest.get(knob.name)
            if known is None or abs(rho) > known[0]:
                largest[knob.name] = (abs(rho), knob)
    return [knob for _, knob in sorted(largest.values(), key=lambda item: (-item[0], item[1].name))]


def _title(found: Sequence[Importance]) -> str:
    first = found[0]  # accuracy, unless it is constant
    rho, knob = max(zip(first.rho, first.knobs, strict=True), key=lambda pair: abs(pair[0]))
    if abs(rho) <= first.chance_of_any:
        return f"No single knob decides about {first.objective.name} beyond chance"
    name = html.escape(shorten(f"{TECHNIQUES[knob.kind].title} of {knob.label}", 48))
    return f"{first.objective.name.capitalize()} follows {name} most closely"


def _add_dots(
    figure: go.Figure, objective: Objective, names: Sequence[str], rho: Sequence[float | None]
) -> None:
    color, symbol = _STYLES[list(OBJECTIVES).index(objective.name) % len(_STYLES)]
    figure.add_scatter(
        x=list(rho),
        y=list(names),
        mode="markers",
        name=objective.name,
        marker={"color": color, "symbol": symbol, "size": 10},
        hovertemplate=f"%{{y}}<br>{objective.name}: %{{x:+.2f}}<extra></extra>",
    )
