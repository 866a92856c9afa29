"""The report: one HTML file that needs nothing else, not even a network.

A Content-Security-Policy in the page forbids every request and every script but the two inlined
ones, which are named by their hashes: even an unescaped name could not run or load anything.
"""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from plotly.offline import get_plotlyjs

from autocompress.atomic_file import write_atomically
from autocompress.objective import OBJECTIVES, Objective, all_costs
from autocompress.report.page_data import json_block, page_data
from autocompress.report.page_frame import page_html, page_script
from autocompress.report.page_sections import (
    TABLES,
    failed_section,
    figure_table,
    front_section,
    gain_section,
    header_words,
    how_section,
    lazy_table,
    missing_section,
    summary,
)
from autocompress.report.page_tables import figure_json, plot_html
from autocompress.report.pictures import run_figures
from autocompress.report.wording import run_argument, shorten
from autocompress.run_record import RunRecord

_NAME_CHARS: Final = 80
_CHOOSE: Final = "Choose a mark to open its card; point at it to read its plan."
_CAPTIONS: Final = {
    "cube": f"Good points are high up and cost little. {_CHOOSE}",
    "hypervolume": "What the points dominate: costs in halvings of the baseline's, averaged over "
    "losses of accuracy up to 4 points, small ones counting more. With size as the only cost, 4 "
    "means 16 times smaller on average. With two costs it is the mean area of both halvings, each "
    "counted from twice the baseline's cost. Filters do not act here.",
    "choices": "A column is a point of the front, a row a part of the model. The stronger the "
    "colour, the stronger the compression; empty cells are unchanged.",
    "sensitivity": "A row is a search dimension, a cell one of its levels, everything else "
    "unchanged: how far the outputs are from the model's on calibration data, in nats for classes. "
    "Methods and 8-bit activations, which do nothing alone, were measured on quantized layers.",
    "importance": "How well the ranking of trials by a figure follows the level of one knob; what "
    "lies in the grey band is no more than chance gives one knob 19 times in 20; of many knobs a "
    "few leave it by chance, which the title allows for. A correlation, not a cause: a search "
    "turns knobs together.",
}
_HEADINGS: Final = {
    **{cost.name: f"Accuracy against {cost.name}" for cost in all_costs()},
    "cube": "Accuracy and two costs",
    "hypervolume": "Progress of the search",
    "choices": "What the front chose",
    "sensitivity": "What each level does by itself",
    "importance": "Which knobs matter",
}
_FILTERS: Final = (
    '<section id="filters" aria-label="Filters" hidden><fieldset class="filters">'
    "<legend>Show trials with</legend>"
    '<button type="button" id="filter-reset">Show all</button></fieldset>'
    '<p id="filter-count" role="status"></p></section>'
)


def write_report(run: RunRecord, path: Path, repeats: Sequence[RunRecord] = ()) -> None:
    """Write the page of a run, whole or not at all.

    Args:
        run: Any state of a run, also one without a finished trial: the page says so.
        path: The HTML file; its folder is made if needed.
        repeats: The same run with other seeds (see `search.repeats`), for error bars.

    Raises:
        InputError: If the file cannot be written.
    """
    write_atomically(path, render_page(run, repeats))


def render_page(
    run: RunRecord, repeats: Sequence[RunRecord] = (), *, extra_script: str = ""
) -> str:
    """The page of a run as HTML text: a pure function of its arguments.

    Args:
        run: Any state of a run.
        repeats: The same run with other seeds, for error bars.
        extra_script: JavaScript of whoever serves the page, run last; it may fetch from its own
            origin, and hand what `render_update` returned there to
            `autocompressReport.update(payload)`.
    """
    payload = render_parts(run, repeats)
    scripts = [get_plotlyjs()] if payload["figures"] or extra_script else []
    scripts += [page_script(), *filter(None, [extra_script])]
    name = shorten(run.name, _NAME_CHARS)
    body = "\n".join([
        '<a class="skip" href="#main">Skip to the findings</a>',
        f"<header><h1>{html.escape(name)}</h1>{_part(payload, 'counts')}</header>",
        _nav(payload),
        f'<main id="main" tabindex="-1">{_main(payload)}</main>',
        "<footer>Written by autocompress from the run's study; write it again at any time with "
        f"<code>autocompress report {html.escape(run_argument(run))}</code>.</footer>",
        '<dialog id="card" aria-labelledby="card-title"></dialog>',
        '<div id="status" class="unseen" role="status"></div>',
        '<script type="application/json" id="report-data">'
        f"{json_block({'data': payload['data'], 'figures': payload['figures']})}</script>",
    ])  # fmt: skip
    title = f"{name}: compression report"
    return page_html(title, body, scripts, may_fetch=bool(extra_script))


def render_update(run: RunRecord, repeats: Sequence[RunRecord] = ()) -> str:
    """All of a page that changes while a search goes on, as JSON for its script's `update`."""
    return json_block(render_parts(run, repeats))


def render_parts(run: RunRecord, repeats: Sequence[RunRecord] = ()) -> dict[str, Any]:
    """What a page is made of: `data` and `figures` for its script, `parts` as HTML by name."""
    figures = run_figures(run, has_texts=False)
    gain = gain_section(run, repeats, figures)
    parts = {
        "counts": f'<p class="soft">{html.escape(header_words(run))}</p>',
        "summary": summary(run),
        "missing": missing_section(run, figures.keys()),
        "gain": gain,
        "front": front_section(run),
        "failed": failed_section(run),
        "how": how_section(run),
        **{f"table-{name}": figure_table(run, name) for name in TABLES if name in figures},
    }
    drawn = {name: figure_json(figure) for name, figure in figures.items()}
    return {"data": page_data(run), "figures": drawn, "parts": parts}


def _main(payload: dict[str, Any]) -> str:
    sections = [_figure_section(name, payload) for name in _HEADINGS]
    rest = (_part(payload, name) for name in ("gain", "front", "missing", "failed", "how"))
    return "\n".join([_part(payload, "summary"), _FILTERS, *sections, *rest])


def _part(payload: dict[str, Any], name: str) -> str:
    """What a refreshed page exchanges as a whole."""
    return f'<div id="part-{name}">{payload["parts"].get(name, "")}</div>'


def _figure_section(name: str, payload: dict[str, Any]) -> str:
    """A chart, its caption, and the same figures as a table; hidden while there is no figure."""
    cost = OBJECTIVES.get(name)
    has_points = cost is not None or name == "hypervolume"
    caption = _CAPTIONS[name] if cost is None else _cost_caption(cost)
    plot = plot_html(name, caption, has_points=has_points)
    title = "The same as a table"
    if cost is not None:
        table = lazy_table(name, title)
    elif name == "cube":
        plot = f"<details><summary>Turn them in three dimensions</summary>{plot}</details>"
        table = lazy_table("all", title)
    else:
        table = _part(payload, f"table-{name}")
        table = f"<details><summary>{title}</summary>{table}</details>"
    hidden = "" if name in payload["figures"] else " hidden"
    return (
        f'<section id="{name}" data-section="{name}"{hidden}><h2>{_HEADINGS[name]}</h2>'
        f"{plot}{table}</section>"
    )


def _cost_caption(cost: Objective) -> str:
    bars = "" if cost.noise is None else "; bars are 95 % confidence intervals"
    return (
        "Up and to the left is better. Filled marks are on the front; the line is the best "
        f"accuracy up to that {cost.name}{bars}. {_CHOOSE}"
    )


def _nav(payload: dict[str, Any]) -> str:
    """Links to the sections that there are."""
    parts = payload["parts"]
    targets = {
        **{name: (heading, name in payload["figures"]) for name, heading in _HEADINGS.items()},
        "gain": ("Search gain", bool(parts["gain"])),
        "front": ("The front", bool(parts["front"])),
        "failed": ("Without a measurement", bool(parts["failed"])),
        "how": ("How it was measured", True),
    }
    items = "".join(
        f'<li{"" if is_there else " hidden"}><a href="#{name}">{title}</a></li>'
        for name, (title, is_there) in targets.items()
    )
    return f'<nav aria-label="Sections"><ul>{items}</ul></nav>'
