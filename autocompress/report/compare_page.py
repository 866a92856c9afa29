"""A comparison of runs as one HTML file, in the style of the report."""

import html
import re
import shlex
from itertools import groupby
from pathlib import Path
from typing import Final, Literal

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from autocompress.atomic_file import write_atomically
from autocompress.report.compare import FIGURE_OF, Comparison
from autocompress.report.compare_figure import fronts_figure
from autocompress.report.compare_script import COMPARE_SCRIPT
from autocompress.report.compare_words import (
    FIGURE_NAMES,
    difference_cells,
    drop_cells,
    obstacle_sentences,
    run_cells,
)
from autocompress.report.page_frame import page_html
from autocompress.report.page_tables import table_html

_HEADINGS: Final[dict[Literal["size", "latency"], str]] = {
    "size": "Accuracy against size",
    "latency": "Accuracy against latency",
}
_CAPTIONS: Final = {
    "size": "Up and to the left is better. A line is the best accuracy of one run for a file of at "
    "most that size.",
    "latency": "Up and to the left is better. Times are ratios to the run's own untouched model, "
    "timed in turns with each candidate: milliseconds of different hours do not compare.",
}
_HOW: Final = (
    "A point within a drop is the cheapest one, searched or control, that keeps its run's limits "
    "and loses at most that much accuracy against the run's own baseline. A run is best where its "
    "point is cheaper than every other's; of latency, where intervals lie apart by more than the "
    "baseline's from itself."
)


def write_comparison(comparison: Comparison, path: Path) -> None:
    """Write the page, whole or not at all.

    Raises:
        InputError: If the file cannot be written.
    """
    write_atomically(path, render_comparison(comparison))


def render_comparison(comparison: Comparison) -> str:
    """The page as HTML text."""
    costs = [cost for cost in _HEADINGS if any(r.cost.name == cost for r in comparison.at_drops)]
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


def _cost_section(comparison: Comparison, cost: Literal["size", "latency"]) -> str:
    picture = "<p>Not drawn: accuracies of these runs are not comparable.</p>"
    if comparison.is_comparable("accuracy"):
        picture = _picture(f"fronts-{cost}", fronts_figure(comparison, cost), _CAPTIONS[cost])
    figure = FIGURE_OF[cost]
    titles, rows = drop_cells(comparison, cost)
    caption = FIGURE_NAMES[figure].capitalize()
    if not comparison.is_comparable(figure):
        caption += ", each run by itself: not comparable"
    table = table_html(titles, rows, caption, n_text_columns=len(titles))
    how = f'<p class="soft">{_HOW}</p>'
    return f'<section class="words"><h2>{_HEADINGS[cost]}</h2>{picture}{table}{how}</section>'


def _picture(name: str, figure: go.Figure, caption: str) -> str:
    """Where a figure is drawn, what it says in words, and its data as JSON."""
    data = figure.to_json().replace("<", "\\u003c").replace(">", "\\u003e")
    words = html.escape(re.sub("<[^>]*>", "", str(figure.layout.title.text)))
    return (
        f'<figure><div class="plot-frame"><div class="plot" role="img" aria-label="{words}" '
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
