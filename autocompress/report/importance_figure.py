"""Which knobs matter, as bars: rank correlation of each with every objective."""

import html
from collections.abc import Sequence
from typing import Final

import plotly.graph_objects as go

from autocompress.objective import Objective
from autocompress.report.choices_figure import KINDS
from autocompress.report.importance import LEAST_TRIALS, Importance, knob_importance
from autocompress.report.theme import BLUE, GREEN, GREY, VERMILLION, new_figure, note_figure
from autocompress.report.wording import shorten
from autocompress.run_record import RunRecord
from autocompress.space.search_space import Knob

_COLORS: Final = {"accuracy": BLUE, "size": VERMILLION, "latency": GREEN}
_SYMBOLS: Final = {"accuracy": "circle", "size": "diamond", "latency": "square"}
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
    names = [f"{KINDS[knob.kind]}: {html.escape(knob.label)}" for knob in knobs]
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
        ticktext=[html.escape(shorten(f"{KINDS[k.kind]}: {k.label}", 38)) for k in knobs],
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
            f"{KINDS[knob.kind]}: {shorten(knob.label, 60)}",
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
    name = html.escape(shorten(f"{KINDS[knob.kind]} of {knob.label}", 48))
    return f"{first.objective.name.capitalize()} follows {name} most closely"


def _add_dots(
    figure: go.Figure, objective: Objective, names: Sequence[str], rho: Sequence[float | None]
) -> None:
    figure.add_scatter(
        x=list(rho),
        y=list(names),
        mode="markers",
        name=objective.name,
        marker={"color": _COLORS[objective.name], "symbol": _SYMBOLS[objective.name], "size": 10},
        hovertemplate=f"%{{y}}<br>{objective.name}: %{{x:+.2f}}<extra></extra>",
    )
