"""HTML tables of trials, failures and run facts. Every text is escaped here, at the last moment."""

import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from autocompress.objective import OBJECTIVES
from autocompress.report.findings import accuracy_change, differs_from_baseline, gain, measured
from autocompress.report.limits import violation_words
from autocompress.report.tables import hypervolume_history
from autocompress.report.wording import (
    format_count,
    format_points,
    format_share,
    format_size,
    format_times,
    plan_lines,
)
from autocompress.run_record import RunRecord, TrialRecord

Cell = Callable[[RunRecord, TrialRecord], str]
_MISSING: Final = "–"


def trials_html(
    run: RunRecord,
    trials: Sequence[TrialRecord],
    caption: str,
    topic: Literal["all", "size", "latency"] = "all",
) -> str:
    """A table of measured trials: all columns or those of one cost.

    Latency stands only where it was measured, broken limits only where there are some.
    """
    has_latency = any(measured(t).latency_ms is not None for t in trials)
    has_violations = any(run.violations(t) for t in trials)
    columns = {
        title: cell
        for title, (topics, cell) in _COLUMNS.items()
        if (topic == "all" or topic in topics)
        and (has_latency or topics != ("latency",))
        and (has_violations or cell is not _broken)
    }
    rows = [[cell(run, trial) for cell in columns.values()] for trial in trials]
    return table_html(list(columns), rows, caption, n_text_columns=1)


def history_html(run: RunRecord) -> str:
    """Hypervolume after each measured trial."""
    history = hypervolume_history(run)
    names = {t.number: trial_name(t) for t in run.complete}
    rows = [
        (names[number], f"{volume:.3f}")
        for number, volume in zip(history["trial"], history["hypervolume"], strict=True)
    ]
    return table_html(["trial", "hypervolume"], rows, "Hypervolume so far", n_text_columns=1)


def choices_html(run: RunRecord) -> str:
    """The plans of the front in words."""
    rows = [(trial_name(t), "; ".join(plan_lines(t.plan))) for t in run.front()]
    return table_html(["trial", "plan"], rows, "Plans of the front", n_text_columns=2)


def trial_name(trial: TrialRecord) -> str:
    """A trial's label, with its number where the label does not show it."""
    number = str(trial.number)
    return trial.label if number in trial.label.split() else f"{trial.label} ({number})"


def failures_html(trials: Sequence[TrialRecord], caption: str) -> str:
    """Trials without a measurement, each with the reason."""
    rows = [
        [trial_name(t), _STATES[t.state], t.reason or _unmeasured(t), "; ".join(plan_lines(t.plan))]
        for t in trials
    ]
    return table_html(["trial", "state", "reason", "plan"], rows, caption, n_text_columns=4)


def table_html(
    headers: Sequence[str], rows: Iterable[Sequence[str]], caption: str, n_text_columns: int
) -> str:
    """A table that scrolls inside its own frame; the first column heads the rows.

    Args:
        headers: Column titles, not escaped.
        rows: Cells, not escaped.
        caption: What the table holds, not escaped.
        n_text_columns: So many columns from the left hold words and align left.
    """
    head = "".join(f'<th scope="col">{html.escape(title)}</th>' for title in headers)
    body = "".join(_row_html(row, n_text_columns) for row in rows)
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
        return _MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(item) for item in value)
    return str(value)


def _row_html(row: Sequence[str], n_text_columns: int) -> str:
    cells = []
    for i, cell in enumerate(row):
        align = "" if i < n_text_columns else ' class="n"'
        tag, scope = ("th", ' scope="row"') if i == 0 else ("td", "")
        cells.append(f"<{tag}{scope}{align}>{html.escape(cell)}</{tag}>")
    return f"<tr>{''.join(cells)}</tr>"


def _unmeasured(trial: TrialRecord) -> str:
    if trial.state == "running":
        return "not finished: still running, or interrupted"
    if trial.measurement is not None:
        return "an objective was not measured"
    return "no reason recorded"


def _broken(run: RunRecord, trial: TrialRecord) -> str:
    return ", ".join(violation_words(run, trial))


def _tuning(trial: TrialRecord) -> str:
    """The baseline is measured as it is, at whatever fidelity it stands for."""
    return "none" if trial.role == "baseline" else _TUNING[measured(trial).fidelity]


def _change(run: RunRecord, trial: TrialRecord) -> str:
    change = accuracy_change(run, trial)
    return _MISSING if change is None else format_points(change, 2)


def _nats(divergence: float | None) -> str:
    return _MISSING if divergence is None else f"{divergence:.3g}"


def _gain(cost: str) -> Cell:
    def cell(run: RunRecord, trial: TrialRecord) -> str:
        ratio = gain(run, trial, OBJECTIVES[cost])
        if ratio is None:
            return _MISSING
        is_noise = cost == "latency" and trial is not run.baseline
        sign = "≈ " if is_noise and not differs_from_baseline(run, trial) else ""
        return f"{sign}{format_times(ratio)}"

    return cell


def _milliseconds(field: str) -> Cell:
    def cell(run: RunRecord, trial: TrialRecord) -> str:
        value = getattr(measured(trial), field)
        return _MISSING if value is None else f"{value:.3f}"

    return cell


def _megabytes(n_bytes: int | None) -> str:
    return _MISSING if n_bytes is None else f"{n_bytes / 1e6:.1f} MB"


_STATES: Final = {
    "complete": "complete",
    "failed": "failed",
    "stopped": "stopped early",
    "running": "running",
}
_TUNING: Final = {0: "none", 1: "brief", 2: "full"}
_BOTH: Final = ("size", "latency")
# Column title -> the topics it belongs to, and its text for a trial.
_COLUMNS: Final[dict[str, tuple[tuple[str, ...], Cell]]] = {
    "trial": (_BOTH, lambda run, t: trial_name(t)),
    "accuracy": (_BOTH, lambda run, t: format_share(measured(t).accuracy)),
    "change": (_BOTH, _change),
    "size": (("size",), lambda run, t: format_size(measured(t).size_bytes)),
    "smaller": (("size",), _gain("size")),
    "latency [ms]": (("latency",), _milliseconds("latency_ms")),
    "spread [ms]": (("latency",), _milliseconds("latency_spread_ms")),
    "faster": (("latency",), _gain("latency")),
    "memory": (("latency",), lambda run, t: _megabytes(measured(t).peak_memory_bytes)),
    "breaks a limit": (_BOTH, _broken),
    "tuning": ((), lambda run, t: _tuning(t)),
    "divergence": ((), lambda run, t: _nats(measured(t).divergence)),
    "MACs": ((), lambda run, t: format_count(measured(t).macs)),
    "parameters": ((), lambda run, t: format_count(measured(t).n_params)),
    "plan": ((), lambda run, t: t.plan.digest),
}
