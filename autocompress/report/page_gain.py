"""The page's section on what searching gained over the controls."""

import html
import shlex
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Final

import plotly.graph_objects as go

from autocompress.report.gain_figure import drop_name, gain_figure
from autocompress.report.page_plot import plot_html
from autocompress.report.page_tables import table_html
from autocompress.report.search_gain import GainAtDrop, SearchGain, Side, Spread, search_gain
from autocompress.report.theme import size_unit
from autocompress.report.wording import format_ms
from autocompress.run_record import RunRecord

_SIDE_NAMES: Final[dict[Side, str]] = {
    "search": "searched trials and baseline",
    "controls": "equally tuned controls alone",
    "both": "both together",
}
_CAPTION: Final = (
    "Lower is better. The same recipe tuned searched points and controls; untuned controls compete "
    "as well."
)
_NONE: Final = "none"


def gain_section(
    run: RunRecord,
    repeats: Sequence[RunRecord] = (),
    figures: dict[str, go.Figure] | None = None,
) -> str:
    """Hypervolume and best cost at equal accuracy, search against controls, as HTML.

    Args:
        run: The run.
        repeats: The same run with other seeds.
        figures: Gets the section's charts, by their names on the page.

    Returns:
        The section; empty if there is nothing to compare.
    """
    gain = search_gain(run, repeats)
    if gain is None:
        return ""
    parts = [f"<p>{_basis(gain)} {_seeds(run, gain)}</p>", _hypervolume_table(gain)]
    for cost, rows in groupby(gain.at_drops, key=lambda row: row.cost):
        at_drops = list(rows)
        name = f"gain-{cost.name}"
        if figures is not None:
            figures[name] = gain_figure(at_drops, gain.seeds)
        parts.append(f"<h3>By {cost.name}</h3>")
        parts.append(plot_html(name, _CAPTION))
        parts.append(_cost_table(at_drops))
    return f'<section id="gain"><h2>Search gain</h2>{"".join(parts)}</section>'


def _basis(gain: SearchGain) -> str:
    return (
        f"What {gain.n_searched} searched trials found, beside {gain.n_controls} controls that "
        "nobody had to search for. A ratio above 1 is in favour of the search."
    )


def _seeds(run: RunRecord, gain: SearchGain) -> str:
    if len(gain.seeds) > 1:
        seeds = html.escape(", ".join(str(seed) for seed in gain.seeds))
        return (
            f"Mean ± standard deviation over {len(gain.seeds)} seeds ({seeds}), of each the first "
            f"{gain.n_trials} trials."
        )
    seed = gain.seeds[0] + 1 if isinstance(gain.seeds[0], int) else 1
    words = ["autocompress", "search", str(run.info.get("task", "TASK"))]
    words += ["--budget", str(gain.n_trials), "--seed", str(seed), "--run", f"{run.name}-{seed}"]
    return (
        f"One seed: no error bars. <code>{html.escape(shlex.join(words))}</code>, with the other "
        "options of this run, adds one."
    )


def _hypervolume_table(gain: SearchGain) -> str:
    rows = [
        (name, _with_spread(gain.hypervolumes[side], "{:.3f}".format, ""))
        for side, name in _SIDE_NAMES.items()
    ]
    return table_html(["points", "hypervolume"], rows, "Hypervolume", n_text_columns=1)


def _cost_table(rows: Sequence[GainAtDrop]) -> str:
    cost = rows[0].cost
    highest = max(
        (v for row in rows for v in (*row.search.known, *row.controls.known)), default=0.0
    )
    factor, unit = size_unit(highest) if cost.name == "size" else (1.0, cost.unit)

    def words(value: float) -> str:
        return f"{value / factor:.{int(factor > 1)}f}" if cost.name == "size" else format_ms(value)

    headers = ["allowed loss", "search", "controls", "ratio"]
    cells = [
        (
            drop_name(row.max_drop),
            _with_spread(row.search, words, unit),
            _with_spread(row.controls, words, unit),
            _with_spread(row.ratio, "{:.2f}".format, "×"),
        )
        for row in rows
    ]
    return table_html(headers, cells, f"Lowest {cost.name} within a drop", n_text_columns=1)


def _with_spread(spread: Spread, words: Callable[[float], str], unit: str) -> str:
    """Mean, standard deviation and unit; how many runs have the figure, if not all do."""
    if spread.mean is None:
        return _NONE
    text = words(spread.mean)
    if spread.deviation is not None:
        text += f" ± {words(spread.deviation)}"
    text += unit if unit in ("", "×") else f" {unit}"
    n_known, n_runs = len(spread.known), len(spread.values)
    return text if n_known == n_runs else f"{text} ({n_known} of {n_runs} seeds)"
