"""HTML tables of trials, failures and run facts. Every text is escaped here, at the last moment."""

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any, Final

import plotly.graph_objects as go

from autocompress.report.axes import REFINED, TRIALS, VALIDATED
from autocompress.report.tables import hypervolume_history
from autocompress.report.trial_columns import MISSING, columns_for, trial_name
from autocompress.report.wording import plan_lines
from autocompress.run_record import RunRecord, TrialRecord


def plot_html(name: str, caption: str, *, has_points: bool = False) -> str:
    """The place of a figure with its caption; the page's script draws it there.

    Args:
        name: Of the figure, unique on the page.
        caption: HTML.
        has_points: Whether its points are trials: then the keyboard can visit them.
    """
    points = " data-points" if has_points else ""
    return (
        f'<figure><div class="plot-frame"><div class="plot" data-figure="{name}"{points}></div>'
        f"</div><figcaption>{caption}</figcaption></figure>"
        "<noscript><p>The chart needs JavaScript; tables on this page hold the figures.</p>"
        "</noscript>"
    )


def figure_json(figure: go.Figure) -> dict[str, Any]:
    """A figure as plain containers, without the texts that the page has by trial number."""
    data: dict[str, Any] = json.loads(figure.to_json())
    for trace in data["data"]:
        if trace.get("meta") == TRIALS:
            trace.pop("hovertext", None)
    return data


_STATES: Final = {
    "complete": "complete",
    "failed": "failed",
    "stopped": "stopped early",
    "running": "running",
}


def trials_html(
    run: RunRecord,
    trials: Sequence[TrialRecord],
    caption: str,
    topic: str = "all",
) -> str:
    """A table of measured trials: all columns or those of one cost.

    Latency stands only where it was measured, broken limits only where there are some.
    """
    columns = columns_for(run, trials, topic)
    rows = [[column.text(run, trial) for column in columns] for trial in trials]
    titles = [column.title for column in columns]
    numbers = [trial.number for trial in trials]
    held = [_held(run, trial) for trial in trials]
    return table_html(titles, rows, caption, n_text_columns=1, trials=numbers, filtered=held)


def _held(run: RunRecord, trial: TrialRecord) -> str:
    """Where the page's data holds the figures of a row."""
    if any(trial is other for other in run.refined):
        return REFINED
    return VALIDATED if any(trial is other for other in run.validated) else TRIALS


def history_html(run: RunRecord) -> str:
    """Hypervolume after each measured trial; filters do not act on it."""
    history = hypervolume_history(run)
    names = {t.number: trial_name(t) for t in run.complete}
    rows = [
        (names[number], f"{volume:.3f}")
        for number, volume in zip(history["trial"], history["hypervolume"], strict=True)
    ]
    numbers = history["trial"].tolist()
    caption = "Hypervolume so far"
    return table_html(["trial", "hypervolume"], rows, caption, n_text_columns=1, trials=numbers)


def choices_html(run: RunRecord) -> str:
    """The plans of the front in words."""
    rows = [(trial_name(t), "; ".join(plan_lines(t.plan))) for t in run.front()]
    numbers = [t.number for t in run.front()]
    held = [TRIALS] * len(numbers)
    return table_html(
        ["trial", "plan"], rows, "Plans of the front", 2, trials=numbers, filtered=held
    )


def failures_html(trials: Sequence[TrialRecord], caption: str) -> str:
    """Trials without a measurement, each with the reason."""
    rows = [
        [trial_name(t), _STATES[t.state], t.reason or _unmeasured(t), "; ".join(plan_lines(t.plan))]
        for t in trials
    ]
    numbers = [t.number for t in trials]
    return table_html(["trial", "state", "reason", "plan"], rows, caption, 4, trials=numbers)


def table_html(
    headers: Sequence[str],
    rows: Iterable[Sequence[str]],
    caption: str,
    n_text_columns: int,
    *,
    trials: Sequence[int] | None = None,
    filtered: Sequence[str] | None = None,
) -> str:
    """A table that scrolls inside its own frame; the first column heads the rows.

    Args:
        headers: Column titles, not escaped.
        rows: Cells, not escaped.
        caption: What the table holds, not escaped.
        n_text_columns: So many columns from the left hold words and align left.
        trials: Number of the trial that each row is about: its head leads to the trial's card.
        filtered: Where the page's data holds the figures by which its filters show or hide each
            row: `TRIALS`, `REFINED`, `VALIDATED`. Without it filters leave the rows alone.
    """
    head = "".join(f'<th scope="col">{html.escape(title)}</th>' for title in headers)
    about = repeat(None) if trials is None else trials
    held = repeat(None) if filtered is None else filtered
    body = "".join(
        _row_html(row, n_text_columns, trial, of)
        for row, trial, of in zip(rows, about, held, strict=False)
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{html.escape(caption)}">'
        f"<table><caption>{html.escape(caption)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def info_html(info: Mapping[str, Any]) -> str:
    """The contents of `run.json`: plain values in one table, each nested object in its own."""
    plain = {k: v for k, v in info.items() if not isinstance(v, Mapping) or not v}
    nested = {k: v for k, v in info.items() if isinstance(v, Mapping) and v}
    parts = [_facts_html("run", plain)] if plain else []
    parts += [_facts_html(title, facts) for title, facts in nested.items()]
    return f'<div class="facts">{"".join(parts)}</div>'


def _facts_html(title: str, facts: Mapping[str, Any]) -> str:
    rows = [(str(key).replace("_", " "), _plain(value)) for key, value in _flatten(facts)]
    body = "".join(
        f'<tr><th scope="row">{html.escape(key)}</th><td>{html.escape(value)}</td></tr>'
        for key, value in rows
    )
    caption = html.escape(str(title).replace("_", " "))
    return f"<table><caption>{caption}</caption><tbody>{body}</tbody></table>"


def _flatten(facts: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in facts.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{key} · ")
        else:
            yield f"{prefix}{key}", value


def _plain(value: object) -> str:
    if value is None or value in ({}, [], ""):
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(item) for item in value)
    return str(value)


def _row_html(row: Sequence[str], n_text_columns: int, trial: int | None, held: str | None) -> str:
    cells = []
    for i, cell in enumerate(row):
        align = "" if i < n_text_columns else ' class="n"'
        tag, scope = ("th", ' scope="row"') if i == 0 else ("td", "")
        text = html.escape(cell)
        if i == 0 and trial is not None:
            text = f'<a href="#trial-{trial}">{text}</a>'
        cells.append(f"<{tag}{scope}{align}>{text}</{tag}>")
    about = "" if held is None else f' data-trial="{trial}" data-of="{held}"'
    return f"<tr{about}>{''.join(cells)}</tr>"


def _unmeasured(trial: TrialRecord) -> str:
    if trial.state == "running":
        return "not finished: still running, or interrupted"
    if trial.measurement is not None:
        return "an objective was not measured"
    return "no reason recorded"
