"""What every level does by itself, before any training: the sensitivity table as a heat map."""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import plotly.graph_objects as go

from autocompress.objective import LATENCY, SIZE
from autocompress.report.choices_figure import rows_of
from autocompress.report.theme import SEQUENTIAL, new_figure, note_figure
from autocompress.report.wording import format_gain, format_level, shorten
from autocompress.run_record import RunRecord
from autocompress.space.search_space import Knob
from autocompress.space.sensitivity_table import Figures, MeasuredLevel, SensitivityTable
from autocompress.technique import TECHNIQUES

_ROW_PX: Final = 21
_MAX_ROW_CHARS: Final = 30
# Below this a difference is rounding: colours need a floor, for they follow the logarithm.
_FLOOR_NATS: Final = 1e-6


def sensitivity_figure(run: RunRecord) -> go.Figure:
    """A row per knob, a cell per level: how far it alone moves the outputs, in nats, log scale.

    Knobs that do nothing by themselves (a quantizer, 8-bit activations) were measured in the
    context that `space.sensitivity_table.context_of` names.
    """
    table = run.options
    measured = [] if table is None else [o for o in table.options if o.figures is not None]
    if table is None or not measured:
        return note_figure("No sensitivity profile", "This run has not measured its options.")
    options = {(o.knob, o.level): o for o in table.options}
    rows = rows_of([k for kind in TECHNIQUES for k in run.knobs if k.kind == kind])
    strongest = max(measured, key=lambda o: o.figures.divergence if o.figures else 0.0)
    figure = new_figure(
        _title(run, strongest),
        "Each cell is one level alone, untrained; the stronger the colour, the more outputs move",
        height_px=200 + _ROW_PX * len(rows),
    )
    figure.add_heatmap(**_cells(rows, options, table))
    _label_axes(figure, rows)
    return figure


def option_rows(run: RunRecord) -> list[tuple[str, str, str, str, str]]:
    """The same as a table: knob, level, divergence, size and speed against the original model."""
    table, knobs = run.options, {knob.name: knob for knob in run.knobs}
    if table is None:
        return []
    rows = []
    for option in table.options:
        knob = knobs.get(option.knob)
        if knob is None or not 0 <= option.level < len(knob.levels):
            continue
        name = f"{TECHNIQUES[knob.kind].title}: {shorten(knob.label, 60)}"
        level = format_level(knob.kind, knob.levels[option.level])
        if option.figures is None:
            rows.append((name, level, "–", option.reason or "not measured", "–"))
            continue
        base = table.contexts.get(option.knob, table.baseline)
        rows.append(
            (name, level, f"{option.figures.divergence:.3g}", *_costs(option.figures, base))
        )
    return rows


def _title(run: RunRecord, strongest: MeasuredLevel) -> str:
    knob = next((k for k in run.knobs if k.name == strongest.knob), None)
    if knob is None:
        return "What each level does by itself"
    level = format_level(knob.kind, knob.levels[strongest.level])
    what = f"{TECHNIQUES[knob.kind].title} of {shorten(knob.label, _MAX_ROW_CHARS)}, {level}"
    return html.escape(f"Alone, nothing hurts more than {what}")


def _costs(figures: Figures, base: Figures) -> tuple[str, str]:
    size = speed = "–"
    if figures.size_bytes and base.size_bytes:
        size = format_gain(base.size_bytes / figures.size_bytes, SIZE)
    if figures.latency_ratio and base.latency_ratio:
        speed = format_gain(base.latency_ratio / figures.latency_ratio, LATENCY)
    return size, speed


def _cells(
    rows: Sequence[Knob | str],
    options: Mapping[tuple[str, int], MeasuredLevel],
    table: SensitivityTable,
) -> dict[str, Any]:
    n_columns = max((len(row.levels) for row in rows if isinstance(row, Knob)), default=2) - 1
    shades: list[list[float | None]] = []
    texts: list[list[str]] = []
    hovers: list[list[str]] = []
    for row in rows:
        found = [
            None if isinstance(row, str) else options.get((row.name, level))
            for level in range(1, n_columns + 1)
        ]
        shades.append([_shade(option) for option in found])
        texts.append([_text(row, option) for option in found])
        hovers.append([_hover(row, option, table) for option in found])
    values = [value for row_of in shades for value in row_of if value is not None]
    low, high = math.floor(min(values)), math.ceil(max(values))
    ticks = list(range(low, max(high, low + 1) + 1))
    return {
        "x": list(range(1, n_columns + 1)),
        "y": [_row_name(row) for row in rows],
        "z": shades,
        "text": texts,
        "hovertext": hovers,
        "hovertemplate": "<b>%{y}</b><br>%{hovertext}<extra></extra>",
        "hoverongaps": False,
        "texttemplate": "%{text}",
        "textfont": {"size": 11},
        "colorscale": [list(stop) for stop in SEQUENTIAL],
        "zmin": ticks[0],
        "zmax": ticks[-1],
        "xgap": 1.5,
        "ygap": 1.5,
        "colorbar": {
            "title": {"text": "nats", "side": "top"},
            "orientation": "h",
            **{"y": 0.0, "yref": "container", "yanchor": "bottom", "x": 0.0, "xanchor": "left"},
            **{"len": 300, "lenmode": "pixels", "thickness": 10, "outlinewidth": 0},
            "tickvals": ticks,
            "ticktext": [f"{10.0**tick:g}" for tick in ticks],
        },
    }


def _shade(option: MeasuredLevel | None) -> float | None:
    if option is None or option.figures is None:
        return None
    return math.log10(max(option.figures.divergence, _FLOOR_NATS))


def _text(row: Knob | str, option: MeasuredLevel | None) -> str:
    if isinstance(row, str) or option is None:
        return ""
    if option.figures is None:
        return "–"
    return html.escape(format_level(row.kind, row.levels[option.level])).replace(" bit", "")


def _hover(row: Knob | str, option: MeasuredLevel | None, table: SensitivityTable) -> str:
    if isinstance(row, str) or option is None:
        return ""
    level = html.escape(format_level(row.kind, row.levels[option.level]))
    if option.figures is None:
        return f"{level}: {html.escape(option.reason or 'not measured')}"
    costs = _costs(option.figures, table.contexts.get(option.knob, table.baseline))
    return f"{level}: {option.figures.divergence:.3g} nats<br>file {costs[0]}<br>{costs[1]}"


def _row_name(row: Knob | str) -> str:
    return (
        row if isinstance(row, str) else f"{TECHNIQUES[row.kind].title}: {html.escape(row.label)}"
    )


def _label_axes(figure: go.Figure, rows: Sequence[Knob | str]) -> None:
    plain = {"showgrid": False, "ticks": "", "showline": False, "tickfont": {"size": 11}}
    names = [row if isinstance(row, str) else row.label for row in rows]
    figure.update_yaxes(
        type="category",
        tickvals=[_row_name(row) for row in rows],
        ticktext=[
            f"<b>{name}</b>" if isinstance(row, str) else html.escape(shorten(name, _MAX_ROW_CHARS))
            for name, row in zip(names, rows, strict=True)
        ],
        autorange="reversed",
        **plain,
    )
    figure.update_xaxes(
        title_text="levels, mild to strong", showticklabels=False, fixedrange=True, **plain
    )
