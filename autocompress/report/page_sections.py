"""The parts of the page that are words and tables, as HTML; every text is escaped here."""

import html
import re
import shlex
from collections.abc import Callable, Sequence, Set
from itertools import groupby
from typing import Final

import plotly.graph_objects as go

from autocompress.objective import ACCURACY
from autocompress.report.findings import cheapest_within, cost_objectives, front_with_baseline
from autocompress.report.gain_figure import drop_name, gain_figure
from autocompress.report.importance_figure import LEAST_TRIALS, importance_rows
from autocompress.report.page_summary import sentences, tiles
from autocompress.report.page_tables import (
    choices_html,
    failures_html,
    history_html,
    info_html,
    plot_html,
    table_html,
    trials_html,
)
from autocompress.report.search_gain import GainAtDrop, SearchGain, Side, Spread, search_gain
from autocompress.report.sensitivity_figure import option_rows
from autocompress.report.wording import half_measured, run_argument, unmeasured_counts
from autocompress.run_record import RunRecord, TrialRecord

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
    factor, unit = cost.quantity.axis_unit(highest)

    def words(value: float) -> str:
        return cost.quantity.write_number(value, factor)

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


_HOW_MEASURED: Final = (
    ("memory", "the most that loading and running took beyond the runtime's own."),
    ("divergence", "how far the outputs on the validation split lie from the original model's, in "
     "nats where they are classes; it decides between points of equal figures."),
    ("controls", "plans nobody had to search for, measured exactly as searched trials are."),
    ("tuning", "training behind a figure: none (statistics re-estimated only), brief or full."),
    ("front", "points with the tuning of searched trials, within the run's limits, that no other "
     "beats in all objectives."),
)  # fmt: skip
_MAY_MISS: Final = {
    "sensitivity": "What each level does by itself: this run has no sensitivity table.",
    "importance": f"Which knobs matter: that takes {LEAST_TRIALS} tuned trials whose figures "
    "differ.",
}


def header_words(run: RunRecord) -> str:
    """What was searched for, and how far it is, as one line."""
    n_measured = len(run.complete)
    counts = [
        f"{n_measured} trial{'' if n_measured == 1 else 's'} measured",
        f"{len(run.front())} on the front",
    ]
    counts += unmeasured_counts(run)
    n_half, lacking = half_measured(run)
    counts += [f"{n_half} without a measured {lacking}"] if n_half else []
    counts += [f"{len(run.refined)} refined"] if run.refined else []
    objectives = ", ".join(o.name for o in run.objectives)
    return f"Compression search over {objectives}: {', '.join(counts)}."


def summary(run: RunRecord) -> str:
    """The findings: tiles, then sentences."""
    cards = "".join(
        f'<div><dt>{html.escape(tile.title)}</dt><dd class="value">{html.escape(tile.value)}</dd>'
        f'<dd class="detail">{html.escape(tile.detail)}</dd></div>'
        for tile in tiles(run)
    )
    lines = "".join(f"<li>{_with_code(line)}</li>" for line in sentences(run))
    grid = f'<dl class="tiles">{cards}</dl>' if cards else ""
    return f"{grid}<section><h2>In short</h2><ul>{lines}</ul></section>"


def _with_code(line: str) -> str:
    """Escape a sentence; what stands in backticks becomes code."""
    return re.sub("`([^`]*)`", r"<code>\1</code>", html.escape(line))


def missing_section(run: RunRecord, figures: Set[str]) -> str:
    """Says which figure is missing, and why."""
    missing = [cost.name for cost in run.shown_costs if cost.name not in figures]
    if not run.complete:
        return ""
    names = [o.name for o in run.objectives]
    lines = []
    for cost in missing:
        if cost in names:
            why = "was not measured in any finished trial."
        else:
            option = f"--objectives {','.join([*names, cost])}"
            why = f"is not an objective of this run; <code>{option}</code> measures it."
        lines.append(f"<li>{cost.capitalize()} {why}</li>")
    lines += [f"<li>{why}</li>" for name, why in _MAY_MISS.items() if name not in figures]
    if not lines:
        return ""
    return f"<section><h2>Not shown</h2><ul>{''.join(lines)}</ul></section>"


def front_section(run: RunRecord) -> str:
    """The front as a table, and how to take a point of it."""
    shown = front_with_baseline(run)
    if not shown:
        return ""
    table = trials_html(run, shown, "Members of the front, most accurate first")
    every = lazy_table("all", f"Every measured trial ({len(run.complete)})")
    return (
        f'<section id="front"><h2>The front</h2>{table}'
        f"{every}{_refined_table(run)}"
        f"<h3>Take one with you</h3>{_export_commands(run)}</section>"
    )


def _refined_table(run: RunRecord) -> str:
    """Trials that were trained longer than the search does."""
    again = [t for t in (*run.refined, *run.validated) if t.measurement is not None]
    if not again:
        return ""
    table = trials_html(run, again, "Trained longer; never compared with the front on it")
    return f"<h3>Refined and validated</h3>{table}"


def _export_commands(run: RunRecord) -> str:
    """Shell commands that turn points of the front into bundles."""
    picks: dict[int, list[str]] = {}
    for cost in cost_objectives(run):
        best = cheapest_within(run, run.feasible, cost)
        if best is not None:
            picks.setdefault(best.number, []).append(f"{cost.best} within 1 pt")
    knee = run.knee()
    if knee is not None and knee.role != "baseline":
        picks.setdefault(knee.number, []).append("best trade-off (knee)")
    command = f"autocompress export {html.escape(run_argument(run))} --trial"
    lines = [f"{command} {number}   # {', '.join(why)}" for number, why in picks.items()]
    lines = lines or [f"{command} N"]
    commands = "\n".join(lines)
    return (
        f"<pre><code>{commands}</code></pre>"
        "<p class='soft'>Any trial number in the tables will do. A bundle holds the packed model, "
        "the ONNX model, the plan, and its accuracy on the test split, measured once.</p>"
    )


def failed_section(run: RunRecord) -> str:
    """Trials without a measurement, with their reasons; empty if there are none."""
    numbers = {t.number for t in run.complete}
    rest: list[TrialRecord] = [t for t in run.trials if t.number not in numbers]
    if not rest:
        return ""
    note = (
        "Failed trials, and those stopped early because nothing spoke for tuning them, count "
        "towards the budget and are not drawn. Unfinished ones are picked up by the same search "
        "command."
    )
    table = failures_html(rest, f"{len(rest)} trials without a full measurement")
    return (
        '<section id="failed" class="words"><h2>Trials without a full measurement</h2>'
        f"<p>{note}</p>{table}</section>"
    )


def how_section(run: RunRecord) -> str:
    """What the figures mean, and what they were measured with."""
    objectives = [(row.name, row.meaning) for row in (ACCURACY, *run.shown_costs)]
    meanings = (*objectives, *_HOW_MEASURED)
    terms = "".join(f"<li><b>{term}</b>: {meaning}</li>" for term, meaning in meanings)
    facts = info_html(run.info) if run.info else "<p>The run recorded nothing about itself.</p>"
    return f'<section id="how"><h2>How it was measured</h2><ul>{terms}</ul>{facts}</section>'


def lazy_table(topic: str, title: str) -> str:
    """A table of all measured trials that the page's script draws when it is opened."""
    return (
        f"<details><summary>{html.escape(title)}</summary>"
        f'<div data-table="{topic}"></div><noscript><p>Needs JavaScript; trials.csv in the run '
        "folder holds the same.</p></noscript></details>"
    )


def figure_table(run: RunRecord, name: str) -> str:
    """The figures of one of the charts in `TABLES` as a table."""
    return TABLES[name](run)


def _sensitivity_table(run: RunRecord) -> str:
    headers = ["knob", "level", "moves outputs by [nats]", "file", "speed"]
    return table_html(headers, option_rows(run), "Every level by itself, untrained", 2)


def _importance_table(run: RunRecord) -> str:
    headers, rows = importance_rows(run)
    return table_html(headers, rows, "Rank correlation of knobs with figures", 1)


TABLES: Final[dict[str, Callable[[RunRecord], str]]] = {
    "hypervolume": history_html,
    "choices": choices_html,
    "sensitivity": _sensitivity_table,
    "importance": _importance_table,
}
"""Charts with tables of their own; those of all trials are drawn by the page's script."""
