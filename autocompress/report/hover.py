"""What a pointer over a trial shows; every name is escaped, for Plotly reads HTML in its texts."""

import html
from typing import Final

from autocompress.objective import Objective
from autocompress.quantities import format_count, format_share
from autocompress.report.findings import (
    accuracy_change,
    cost_of,
    gain,
    is_level_with_baseline,
    measured,
)
from autocompress.report.wording import (
    format_gain,
    format_points,
    plan_lines,
    shorten,
    violation_words,
)
from autocompress.run_record import RunRecord, TrialRecord

_LINE_CHARS: Final = 64
_NAME_CHARS: Final = 40


def short_name(trial: TrialRecord) -> str:
    """A trial's label for a figure: shortened, then escaped."""
    return html.escape(shorten(trial.label, _NAME_CHARS))


def hover_text(run: RunRecord, trial: TrialRecord) -> str:
    """What a pointer over a trial shows: its figures, then its plan in grouped lines; escaped."""
    plan = "<br>".join(html.escape(line) for line in wrapped_plan(trial))
    return f"{hover_figures(run, trial)}<br><br>{plan}"


def wrapped_plan(trial: TrialRecord) -> list[str]:
    """The plan in lines short enough for a pointer's box; not escaped."""
    return [part for line in plan_lines(trial.plan) for part in _wrap(line, _LINE_CHARS)]


def hover_figures(run: RunRecord, trial: TrialRecord) -> str:
    """The first part of `hover_text`: name and figures, lines joined by `<br>`; escaped."""
    figures = measured(trial)
    change = None if trial.role == "baseline" else accuracy_change(run, trial)
    drop = "" if change is None else f" ({format_points(change, 2)})"
    lines = [
        f"<b>{short_name(trial)}</b>",
        f"accuracy {format_share(figures.accuracy)}{drop}",
        *(_cost_line(run, trial, c) for c in run.shown_costs if cost_of(trial, c) is not None),
    ]
    lines += [f"breaks a limit: {words}" for words in violation_words(run, trial)]
    lines.append(f"{format_count(figures.macs)} MACs, {format_count(figures.n_params)} parameters")
    return "<br>".join(lines)


def _cost_line(run: RunRecord, trial: TrialRecord, cost: Objective) -> str:
    value = cost_of(trial, cost)
    assert value is not None
    notes = f"{_noise_note(trial, cost)}{_gain_note(run, trial, cost)}"
    return f"{cost.name} {cost.quantity.write(value)}{notes}"


def _noise_note(trial: TrialRecord, cost: Objective) -> str:
    """The interval of a noisy figure, or its spread where there is none."""
    if cost.noise is None:
        return ""
    names = (cost.noise.low, cost.noise.high, cost.noise.spread)
    low, high, spread = (getattr(trial.measurement, name) for name in names)
    number = cost.quantity.write_number
    if low is not None and high is not None:
        again = ", timed again" if trial.role == "baseline" else ""
        return f" (95 %: {number(low)} to {number(high)}{again})"
    return "" if spread is None else f" (spread {number(spread)})"


def _gain_note(run: RunRecord, trial: TrialRecord, cost: Objective) -> str:
    ratio = gain(run, trial, cost)
    if ratio is None or trial.role == "baseline":
        return ""
    if is_level_with_baseline(run, trial, cost):
        return f", {cost.even} as the baseline within the noise"
    return f", {format_gain(ratio, cost)}"


def _wrap(line: str, n_chars: int) -> list[str]:
    """Break after commas; what follows the first line is indented."""
    lines = [""]
    for part in line.split(", "):
        if lines[-1] and len(lines[-1]) + len(part) > n_chars:
            lines.append("   ")
        lines[-1] += part if not lines[-1].strip() else f", {part}"
    return lines
