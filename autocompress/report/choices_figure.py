"""What the members of the front chose, knob by knob, as a heat map."""

import html
from collections.abc import Sequence
from typing import Any, Final

import plotly.graph_objects as go

from autocompress.quantities import format_share, format_size
from autocompress.report.findings import measured
from autocompress.report.theme import SEQUENTIAL, new_figure, note_figure
from autocompress.report.wording import format_level, shorten
from autocompress.run_record import RunRecord, TrialRecord
from autocompress.space.search_space import Knob
from autocompress.technique import TECHNIQUES

_ROW_PX: Final = 21
_MAX_ROW_CHARS: Final = 30
# Beyond this many columns a cell is narrower than its text; the pointer still shows it.
_MAX_COLUMNS_WITH_TEXT: Final = 24


def choices_figure(run: RunRecord) -> go.Figure:
    """Levels chosen by the front: a row per knob, grouped by kind; a column per point, by size.

    Colour is the level's place between untouched (0) and the strongest the space offers (1), the
    text its value. Knobs that every member leaves untouched are counted, not drawn.
    """
    members = sorted(
        (t for t in run.front() if t.role != "baseline"),
        key=lambda t: (measured(t).size_bytes, t.number),
    )
    if not members:
        return note_figure("No choices to compare", "No compressed point is on the front.")
    knobs = [k for kind in TECHNIQUES for k in run.knobs if k.kind == kind]
    used = [k for k in knobs if any(t.levels.get(k.name, 0) > 0 for t in members)]
    n_idle = len(knobs) - len(used)
    subtitle = (
        f"Not shown, as no point touches them: {n_idle} of {len(knobs)} knobs" if n_idle else ""
    )
    if not used:
        return note_figure(
            "The front changes no search dimension", "Every point is the original model."
        )
    rows = rows_of(used)
    figure = new_figure(_title(members), subtitle, height_px=230 + _ROW_PX * len(rows))
    figure.update_layout(margin_t=84 if subtitle else 60)
    figure.add_heatmap(**_cells(rows, members))
    _label_axes(figure, rows, members)
    return figure


def _title(members: Sequence[TrialRecord]) -> str:
    if len(members) == 1:
        return "What the one compressed point of the front chose"
    return f"What the {len(members)} compressed points of the front chose"


def rows_of(knobs: Sequence[Knob]) -> list[Knob | str]:
    """Knobs in order, each kind headed by a row that holds its title only."""
    rows: list[Knob | str] = []
    for knob in knobs:
        title = TECHNIQUES[knob.kind].title
        if title not in rows:
            rows.append(title)
        rows.append(knob)
    return rows


def _cells(rows: Sequence[Knob | str], members: Sequence[TrialRecord]) -> dict[str, Any]:
    shades: list[list[float | None]] = []
    texts: list[list[str]] = []
    values: list[list[str]] = []
    for row in rows:
        indices = [None if isinstance(row, str) else t.levels.get(row.name) for t in members]
        shades.append([_shade(row, index) for index in indices])
        texts.append([_text(row, index) for index in indices])
        values.append([_value(row, index) for index in indices])
    return {
        "x": [_column_name(trial) for trial in members],
        "y": [_row_name(row) for row in rows],
        "z": shades,
        "meta": {"columns": [trial.number for trial in members]},
        "text": texts,
        "hovertext": values,
        "hovertemplate": "<b>%{y}</b><br>%{hovertext}<br>%{x}<extra></extra>",
        "hoverongaps": False,
        "texttemplate": "%{text}" if len(members) <= _MAX_COLUMNS_WITH_TEXT else "",
        "textfont": {"size": 11},
        "colorscale": [list(stop) for stop in SEQUENTIAL],
        "zmin": 0.0,
        "zmax": 1.0,
        "xgap": 1.5,
        "ygap": 1.5,
        "colorbar": {
            "orientation": "h",
            "y": 0.0,
            "yref": "container",
            "yanchor": "bottom",
            "x": 0.0,
            "xanchor": "left",
            "len": 260,
            "lenmode": "pixels",
            "thickness": 10,
            "tickvals": [0.0, 1.0],
            "ticktext": ["unchanged", "strongest"],
            "outlinewidth": 0,
        },
    }


def _shade(row: Knob | str, index: int | None) -> float | None:
    if isinstance(row, str) or index is None:
        return None
    return index / max(len(row.levels) - 1, 1)


def _text(row: Knob | str, index: int | None) -> str:
    if isinstance(row, str) or not index:
        return ""
    return format_level(row.kind, row.levels[index]).replace(" bit", "").replace(" %", "%")


def _value(row: Knob | str, index: int | None) -> str:
    if isinstance(row, str) or index is None:
        return ""
    note = " (unchanged)" if index == 0 else ""
    return format_level(row.kind, row.levels[index]) + note


def _column_name(trial: TrialRecord) -> str:
    """A category of the axis, shown by the pointer: unique, for it holds the trial's number."""
    figures = measured(trial)
    label = html.escape(shorten(trial.label, 40))
    size, accuracy = format_size(figures.size_bytes), format_share(figures.accuracy)
    return f"#{trial.number} {label}: {size}, {accuracy}"


def _row_name(row: Knob | str) -> str:
    """A category of the axis: unique, because names of knobs are."""
    if isinstance(row, str):
        return row
    return f"{TECHNIQUES[row.kind].title}: {html.escape(row.label)}"


def _label_axes(
    figure: go.Figure, rows: Sequence[Knob | str], members: Sequence[TrialRecord]
) -> None:
    """Short names at the ticks; the categories behind them are the full ones."""
    sizes = [format_size(measured(t).size_bytes) for t in members]
    plain = {"type": "category", "showgrid": False, "ticks": "", "tickfont": {"size": 11}}
    figure.update_yaxes(
        tickvals=[_row_name(row) for row in rows],
        ticktext=[
            f"<b>{row}</b>"
            if isinstance(row, str)
            else html.escape(shorten(row.label, _MAX_ROW_CHARS))
            for row in rows
        ],
        autorange="reversed",
        showline=False,
        **plain,
    )
    figure.update_xaxes(
        title_text="points of the front, smallest file first (trial number · size)",
        tickvals=[_column_name(trial) for trial in members],
        ticktext=[f"{t.number} · {size}" for t, size in zip(members, sizes, strict=True)],
        tickangle=-60,
        showline=False,
        **plain,
    )
