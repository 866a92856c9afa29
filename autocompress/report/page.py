"""The report: one HTML file that needs nothing else, not even a network.

A Content-Security-Policy in the page forbids every request and every script but the two inlined
ones, which are named by their hashes: even an unescaped name could not run or load anything.
"""

import base64
import hashlib
import html
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from autocompress.atomic_file import write_atomically
from autocompress.objective import OBJECTIVES
from autocompress.report.figures import run_figures
from autocompress.report.findings import cheapest_within, cost_objectives, front_with_baseline
from autocompress.report.page_assets import SCRIPT, STYLE
from autocompress.report.page_gain import gain_section
from autocompress.report.page_plot import plot_html
from autocompress.report.page_summary import sentences, tiles
from autocompress.report.page_tables import (
    choices_html,
    failures_html,
    history_html,
    info_html,
    trials_html,
)
from autocompress.report.wording import shorten
from autocompress.run_record import RunRecord, TrialRecord

_NAME_CHARS: Final = 80
_CELL_PX: Final = 30
_HOW_MEASURED: Final = (
    ("accuracy", "the task's metric on the validation split, after a trial's tuning, if any."),
    ("size", "bytes of the packed file on disk, which unpacks to a running model; 1 kB = 1000 B."),
    ("latency", "median time of one inference of the exported model; spread is its interquartile "
     "range. “Faster” compares with the baseline timed in turns with the candidate; marked ≈ where "
     "intervals do not lie apart by more than the baseline's from itself."),
    ("memory", "the most that loading and running took beyond the runtime's own."),
    ("divergence", "how far the outputs on the validation split lie from the untouched model's, in "
     "nats where they are classes; it decides between points of equal figures."),
    ("controls", "plans nobody had to search for, measured exactly as searched trials are."),
    ("tuning", "training behind a figure: none (statistics re-estimated only), brief or full."),
    ("front", "points with the tuning of searched trials, within the run's limits, that no other "
     "beats in all objectives."),
)  # fmt: skip
_CAPTIONS: Final = {
    "size": "Up and to the left is better. Filled marks are on the front; the line is the best "
    "accuracy for a file of at most that size. Point at a mark to read its plan.",
    "latency": "Up and to the left is better. The line is the best accuracy within that time; bars "
    "are 95 % confidence intervals. Point at a mark to read its plan.",
    "hypervolume": "What the points dominate: costs in halvings of the baseline's, averaged over "
    "accuracies down to 10 % below the baseline's. With size as the only cost, 4 means 16 times "
    "smaller on average. With two costs halvings multiply, each counted from twice the baseline's.",
    "choices": "A column is a point of the front, a row a part of the model. The stronger the "
    "colour, the stronger the compression; empty cells are untouched.",
}
_HEADINGS: Final = {
    "size": "Accuracy against size",
    "latency": "Accuracy against latency",
    "hypervolume": "Progress of the search",
    "choices": "What the front chose",
}


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


def render_page(run: RunRecord, repeats: Sequence[RunRecord] = ()) -> str:
    """The page of a run as HTML text."""
    figures = run_figures(run)
    scripts = [get_plotlyjs(), SCRIPT] if figures else []
    policy = _content_policy(scripts)
    title = html.escape(shorten(run.name, _NAME_CHARS))
    body = "\n".join([
        _header(run, title),
        "<main>",
        _summary(run),
        *(_figure_section(run, name, figure) for name, figure in figures.items()),
        _missing_cost_section(run, figures),
        gain_section(run, repeats),
        _front_section(run),
        _failed_section(run),
        _how_section(run),
        "</main>",
        "<footer>Written by autocompress from the run's study; write it again at any time with "
        f"<code>autocompress report {_shell_name(run)}</code>.</footer>",
        *(f"<script>{script}</script>" for script in scripts),
    ])  # fmt: skip
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}: compression report</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _content_policy(scripts: Sequence[str]) -> str:
    """Nothing may be loaded; only these scripts may run. Plotly writes style sheets at run time."""
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _shell_name(run: RunRecord) -> str:
    return html.escape(shlex.quote(run.name))


def _header(run: RunRecord, title: str) -> str:
    n_failed = sum(t.state == "failed" for t in run.trials)
    n_stopped = sum(t.state == "stopped" for t in run.trials)
    n_open = len(run.trials) - len(run.complete) - n_failed - n_stopped
    n_measured = len(run.complete)
    counts = [
        f"{n_measured} trial{'' if n_measured == 1 else 's'} measured",
        f"{len(run.front())} on the front",
    ]
    counts += [f"{n_failed} failed"] if n_failed else []
    counts += [f"{n_stopped} stopped early"] if n_stopped else []
    counts += [f"{n_open} unfinished"] if n_open > 0 else []
    objectives = ", ".join(o.name for o in run.objectives)
    return (
        f'<header><h1>{title}</h1><p class="soft">Compression search over {objectives}: '
        f"{', '.join(counts)}.</p></header>"
    )


def _summary(run: RunRecord) -> str:
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


def _figure_section(run: RunRecord, name: str, figure: go.Figure) -> str:
    """A chart, its caption, and the same figures as a table."""
    # Cells of a heat map must stay wide enough to hit: on a narrow screen it scrolls sideways.
    n_columns = len(figure.data[0].z[0]) if name == "choices" and figure.data else 0
    min_width_px = 190 + _CELL_PX * n_columns if n_columns else 0
    plot = plot_html(name, figure, _CAPTIONS[name], min_width_px=min_width_px)
    return (
        f"<section><h2>{_HEADINGS[name]}</h2>{plot}"
        f"<details><summary>The same as a table</summary>{_chart_table(run, name)}</details>"
        "</section>"
    )


def _chart_table(run: RunRecord, name: str) -> str:
    caption = f"{len(run.complete)} measured trials"
    tables: dict[str, Callable[[], str]] = {
        "size": lambda: trials_html(run, run.complete, caption, "size"),
        "latency": lambda: trials_html(run, run.complete, caption, "latency"),
        "hypervolume": lambda: history_html(run),
        "choices": lambda: choices_html(run),
    }
    return tables[name]()


def _missing_cost_section(run: RunRecord, figures: dict[str, go.Figure]) -> str:
    """Says which cost has no chart, and why."""
    missing = [cost for cost in ("size", "latency") if cost not in figures]
    if not missing or not run.complete:
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
    return f"<section><h2>Not shown</h2><ul>{''.join(lines)}</ul></section>"


def _front_section(run: RunRecord) -> str:
    shown = front_with_baseline(run)
    if not shown:
        return ""
    table = trials_html(run, shown, "Members of the front, most accurate first")
    full = trials_html(run, run.complete, "All measured trials in order")
    return (
        f"<section><h2>The front</h2>{table}"
        f"<details><summary>Every measured trial ({len(run.complete)})</summary>{full}</details>"
        f"<h3>Take one with you</h3>{_export_commands(run)}</section>"
    )


def _export_commands(run: RunRecord) -> str:
    """Shell commands that turn points of the front into bundles."""
    picks: dict[int, list[str]] = {}
    for cost in cost_objectives(run):
        best = cheapest_within(run, run.feasible, cost)
        if best is not None:
            word = "smallest" if cost is OBJECTIVES["size"] else "fastest"
            picks.setdefault(best.number, []).append(f"{word} within 1 pt")
    knee = run.knee()
    if knee is not None and knee.role != "baseline":
        picks.setdefault(knee.number, []).append("best trade-off (knee)")
    lines = [
        f"autocompress export {_shell_name(run)} --trial {number}   # {', '.join(why)}"
        for number, why in picks.items()
    ] or [f"autocompress export {_shell_name(run)} --trial N"]
    commands = "\n".join(lines)
    return (
        f"<pre><code>{commands}</code></pre>"
        "<p class='soft'>Any trial number in the tables will do. A bundle holds the packed model, "
        "the ONNX model, the plan, and its accuracy on the test split, measured once.</p>"
    )


def _failed_section(run: RunRecord) -> str:
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
        '<section class="words"><h2>Failed, stopped and unfinished trials</h2>'
        f"<p>{note}</p>{table}</section>"
    )


def _how_section(run: RunRecord) -> str:
    terms = "".join(f"<li><b>{term}</b>: {meaning}</li>" for term, meaning in _HOW_MEASURED)
    facts = info_html(run.info) if run.info else "<p>The run recorded nothing about itself.</p>"
    return f"<section><h2>How it was measured</h2><ul>{terms}</ul>{facts}</section>"
