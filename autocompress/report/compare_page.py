"""A comparison of runs as one HTML file, in the style of the report."""

import html
import re
import shlex
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from autocompress.atomic_file import write_atomically
from autocompress.objective import Objective
from autocompress.quantities import format_share, format_size
from autocompress.report.compare import BestAtDrop, Comparison, Figure, figure_at_drop
from autocompress.report.compare_figure import fronts_figure
from autocompress.report.findings import accuracy_change, cost_of, is_level_with_baseline, measured
from autocompress.report.gain_figure import drop_name
from autocompress.report.page_frame import page_html
from autocompress.report.page_tables import table_html
from autocompress.report.wording import format_gain, format_points, shorten
from autocompress.run_record import RunRecord, TrialRecord

# Each figure from its JSON block, anew when the colour scheme or the width class changes.
COMPARE_SCRIPT: Final = """
(() => {
  'use strict';
  const dark = matchMedia('(prefers-color-scheme: dark)');
  const narrow = matchMedia('(max-width: 640px)');
  const color = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const wrap = (text, limit) => {
    const lines = [''];
    for (const word of text.split(' ')) {
      const last = lines[lines.length - 1];
      if (last && last.length + word.length >= limit) lines.push(word);
      else lines[lines.length - 1] = last ? last + ' ' + word : word;
    }
    return lines;
  };
  const adapt = ({data, layout}, width) => {
    layout.font.color = color('--text');
    layout.paper_bgcolor = color('--card');
    Object.assign(layout.hoverlabel, {bgcolor: color('--page'), bordercolor: color('--line')});
    layout.title.subtitle.font.color = color('--soft');
    const room = width - (narrow.matches ? 16 : 210);
    const title = wrap(layout.title.text.replaceAll(' %', '\\u00a0%'), Math.floor(room / 9.8));
    layout.title.text = title.join('<br>');
    const notes = wrap(layout.title.subtitle.text || '', Math.floor((width - 24) / 6.6));
    layout.title.subtitle.text = notes.join('<br>');
    layout.margin.t += 24 * (title.length - 1) + 18 * (notes.length - 1);
    if (narrow.matches) {
      layout.title.font.size = 17;
      layout.yaxis.title.text = '';
      layout.xaxis.title.font = {size: 12};
      Object.assign(layout.margin, {l: 44, r: 10});
    }
    return {data, layout};
  };
  const draw = () => document.querySelectorAll('[data-figure]').forEach(div => {
    const source = document.getElementById(div.dataset.figure).textContent;
    const figure = adapt(JSON.parse(source), div.parentElement.clientWidth);
    div.style.height = figure.layout.height + 'px';
    const config = {responsive: true, displaylogo: false,
      displayModeBar: narrow.matches ? false : 'hover',
      modeBarButtonsToRemove: ['select2d', 'lasso2d'],
      toImageButtonOptions: {filename: div.dataset.figure, scale: 2}};
    Plotly.react(div, figure.data, figure.layout, config);
  });
  draw();
  dark.addEventListener('change', draw);
  narrow.addEventListener('change', draw);
})();
"""


Rows = list[list[str]]

_PLURALS: Final = {"accuracy": "accuracies", "hypervolume": "hypervolumes"}
_NONE: Final = "–"
_MAX_CHARS: Final = 60
_N_DIGEST: Final = 10
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


def figure_name(figure: Figure) -> str:
    """What several of a figure are called.

    >>> figure_name("accuracy"), figure_name("size_at_drop")
    ('accuracies', 'sizes at equal loss of accuracy')
    """
    best = figure.removesuffix("_at_drop")
    return _PLURALS.get(figure, f"{best}s at equal loss of accuracy")


def run_cells(comparison: Comparison) -> tuple[list[str], Rows]:
    """Titles and a row per run: how far it went, its baseline, its hypervolume."""
    titles = ["run", "finished", "on the front", "baseline", "its size", "hypervolume"]
    lengths = {run.n_finished for run in comparison.runs}
    is_uneven = len(lengths) > 1
    titles += [f"after {comparison.n_equal} trials"] if is_uneven else []
    rows = []
    for name, run, volume, equal in zip(
        comparison.names,
        comparison.runs,
        comparison.hypervolumes,
        comparison.equal_hypervolumes,
        strict=True,
    ):
        row = [name, str(run.n_finished), str(len(run.front())), *_baseline(run), _volume(volume)]
        rows.append([*row, _volume(equal)] if is_uneven else row)
    return titles, rows


def drop_cells(comparison: Comparison, cost: Objective) -> tuple[list[str], Rows]:
    """Titles and a row per allowed drop: each run's cheapest point, and which is ahead."""
    rows = [
        [drop_name(row.max_drop), *_points(comparison, row), _winner(comparison, row)]
        for row in comparison.at_drops
        if row.cost == cost
    ]
    return ["loses at most", *comparison.names, "best"], rows


def difference_cells(comparison: Comparison) -> tuple[list[str], Rows]:
    """Titles and a row per thing that is not the same in all runs."""
    rows = [
        [row.topic, row.key, *(_short(value) for value in row.values)]
        for row in comparison.differences
    ]
    return ["topic", "what", *comparison.names], rows


def obstacle_sentences(comparison: Comparison) -> list[str]:
    """What may not be compared, and why; says so, too, if everything may."""
    sentences = [
        f"Not comparable: {figure_name(figure)}, because these differ: {', '.join(why)}."
        if not any(" " in reason for reason in why)
        else f"Not comparable: {figure_name(figure)}: {', '.join(why)}."
        for figure, why in comparison.obstacles.items()
        if why and not _goes_without_saying(comparison, figure)
    ]
    return sentences or ["All figures below are comparable."]


def _goes_without_saying(comparison: Comparison, figure: Figure) -> bool:
    """A cost that no run has measured."""
    return figure.endswith("_at_drop") and not any(
        figure_at_drop(row.cost) == figure for row in comparison.at_drops
    )


def _baseline(run: RunRecord) -> list[str]:
    if run.baseline is None:
        return [_NONE, _NONE]
    figures = measured(run.baseline)
    return [format_share(figures.accuracy), format_size(figures.size_bytes)]


def _volume(volume: float | None) -> str:
    return _NONE if volume is None else f"{volume:.3f}"


def _points(comparison: Comparison, row: BestAtDrop) -> list[str]:
    return [
        _NONE if trial is None else _point(run, trial, gain, row.cost)
        for run, trial, gain in zip(comparison.runs, row.trials, row.gains, strict=True)
    ]


def _point(run: RunRecord, trial: TrialRecord, gain: float | None, cost: Objective) -> str:
    """Text such as `578 B, 25.4× smaller, −1.00 pt (#13)`; ≈ marks a speedup within the noise."""
    change = accuracy_change(run, trial)
    assert change is not None  # points at a drop have a baseline
    words = [] if gain is None else [format_gain(gain, cost)]
    value = cost_of(trial, cost)
    if cost.noise is None and value is not None:
        words = [cost.quantity.write(value), *words]
    elif words and is_level_with_baseline(run, trial, cost):
        words = [f"≈ {words[0]}"]
    return f"{', '.join([*words, format_points(change, 2)])} (#{trial.number})"


def _winner(comparison: Comparison, row: BestAtDrop) -> str:
    return _NONE if row.winner is None else comparison.names[row.winner]


def _short(value: Any) -> str:
    """A recorded value in a cell: digests by their first digits, nothing as a dash."""
    if value is None or value in ("", [], {}):
        return _NONE
    if isinstance(value, list | tuple):
        return shorten(", ".join(str(item) for item in value), _MAX_CHARS)
    text = str(value)
    return text[:_N_DIGEST] if _DIGEST.fullmatch(text) else shorten(text, _MAX_CHARS)


_CAPTION: Final = (
    "Up and to the left is better. A line is the best accuracy of one run up to that {cost}."
)
_NOISY_CAPTION: Final = (
    f"{_CAPTION} Figures are ratios to the run's own original model, measured in turns with each "
    "candidate: those of different hours do not compare."
)
_HOW: Final = (
    "A point within a drop is the cheapest one, searched or control, that keeps its run's limits "
    "and loses at most that much accuracy against the run's own baseline. A run is best where its "
    "point is cheaper than every other's; of a noisy cost, where intervals lie apart by more than "
    "the baseline's from itself."
)


def write_comparison(comparison: Comparison, path: Path) -> None:
    """Write the page, whole or not at all.

    Raises:
        InputError: If the file cannot be written.
    """
    write_atomically(path, render_comparison(comparison))


def render_comparison(comparison: Comparison) -> str:
    """The page as HTML text."""
    costs = list(dict.fromkeys(row.cost for row in comparison.at_drops))
    titles, rows = run_cells(comparison)
    notes = "".join(f"<li>{html.escape(line)}</li>" for line in obstacle_sentences(comparison))
    body = [
        f"<header><h1>{len(comparison.runs)} runs compared</h1>"
        f'<p class="soft">{html.escape(", ".join(comparison.names))}</p></header><main>',
        f"<section><h2>In short</h2>{table_html(titles, rows, 'Runs', n_text_columns=1)}"
        f"<ul>{notes}</ul></section>",
        *(_cost_section(comparison, cost) for cost in costs),
        f'<section class="words"><h2>What differs</h2>{_differences(comparison)}</section></main>',
        "<footer>Written by autocompress from the runs' studies; write it again with "
        f"<code>{html.escape(_command(comparison))}</code>.</footer>",
    ]
    has_figure = bool(costs) and comparison.is_comparable("accuracy")
    scripts = [get_plotlyjs(), COMPARE_SCRIPT] if has_figure else []
    return page_html(f"{' against '.join(comparison.names)}: compared", "\n".join(body), scripts)


def _cost_section(comparison: Comparison, cost: Objective) -> str:
    picture = "<p>Not drawn: accuracies of these runs are not comparable.</p>"
    if comparison.is_comparable("accuracy"):
        caption = _CAPTION if cost.noise is None else _NOISY_CAPTION
        picture = _picture(
            f"fronts-{cost.name}",
            fronts_figure(comparison, cost.name),
            caption.format(cost=cost.name),
        )
    figure = figure_at_drop(cost)
    titles, rows = drop_cells(comparison, cost)
    caption = figure_name(figure).capitalize()
    if not comparison.is_comparable(figure):
        caption += ", each run by itself: not comparable"
    table = table_html(titles, rows, caption, n_text_columns=len(titles))
    how = f'<p class="soft">{_HOW}</p>'
    heading = f"<h2>Accuracy against {cost.name}</h2>"
    return f'<section class="words">{heading}{picture}{table}{how}</section>'


def _picture(name: str, figure: go.Figure, caption: str) -> str:
    """Where a figure is drawn, what it says in words, and its data as JSON."""
    data = figure.to_json().replace("<", "\\u003c").replace(">", "\\u003e")
    words = html.escape(re.sub("<[^>]*>", "", str(figure.layout.title.text)))
    return (
        f'<figure aria-label="{words}"><div class="plot-frame"><div class="plot" '
        f'data-figure="{name}" style="height:{figure.layout.height}px"></div></div>'
        f"<figcaption>{caption} The table below holds the best points.</figcaption></figure>"
        f'<script type="application/json" id="{name}">{data}</script>'
    )


def _differences(comparison: Comparison) -> str:
    titles, rows = difference_cells(comparison)
    if not rows:
        return "<p>Nothing that is recorded.</p>"
    return "".join(
        f"<h3>{html.escape(topic.capitalize())}</h3>"
        + table_html(
            titles[1:], [row[1:] for row in group], topic.capitalize(), n_text_columns=len(titles)
        )
        for topic, group in groupby(rows, key=lambda row: row[0])
    )


def _command(comparison: Comparison) -> str:
    return shlex.join(["autocompress", "compare", *(str(run.folder) for run in comparison.runs)])
