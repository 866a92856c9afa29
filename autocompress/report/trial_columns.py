"""What a table says of a measured trial: a column for each figure. Nothing here is escaped."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Final, Literal

from autocompress.objective import OBJECTIVES
from autocompress.report.findings import accuracy_change, differs_from_baseline, gain, measured
from autocompress.report.wording import (
    format_count,
    format_ms,
    format_points,
    format_share,
    format_size,
    format_times,
    violation_words,
)
from autocompress.run_record import RunRecord, TrialRecord

Cell = Callable[[RunRecord, TrialRecord], str]
Topic = Literal["all", "size", "latency"]
MISSING: Final = "–"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column.

    Attributes:
        title: Its head.
        topics: The costs whose tables have it; every one stands in the table of all.
        text: What it says of a trial of a run.
    """

    title: str
    topics: tuple[str, ...]
    text: Cell


def columns_for(
    run: RunRecord, trials: Sequence[TrialRecord], topic: Topic = "all"
) -> list[Column]:
    """The columns of a table of measured trials.

    Latency stands only where it was measured, broken limits only where there are some.
    """
    has_latency = any(measured(t).latency_ms is not None for t in trials)
    has_violations = any(run.violations(t) for t in trials)
    return [
        column
        for column in COLUMNS
        if (topic == "all" or topic in column.topics)
        and (has_latency or column.topics != ("latency",))
        and (has_violations or column.text is not _broken)
    ]


def trial_name(trial: TrialRecord) -> str:
    """A trial's label, with its number where the label does not show it."""
    number = str(trial.number)
    return trial.label if number in trial.label.split() else f"{trial.label} ({number})"


def _broken(run: RunRecord, trial: TrialRecord) -> str:
    return ", ".join(violation_words(run, trial))


def _tuning(trial: TrialRecord) -> str:
    """The baseline is measured as it is, at whatever fidelity it stands for."""
    return "none" if trial.role == "baseline" else _TUNING[measured(trial).fidelity]


def _change(run: RunRecord, trial: TrialRecord) -> str:
    change = accuracy_change(run, trial)
    return MISSING if change is None else format_points(change, 2)


def _nats(divergence: float | None) -> str:
    return MISSING if divergence is None else f"{divergence:.3g}"


def _gain(cost: str) -> Cell:
    def cell(run: RunRecord, trial: TrialRecord) -> str:
        ratio = gain(run, trial, OBJECTIVES[cost])
        if ratio is None:
            return MISSING
        is_noise = cost == "latency" and trial is not run.baseline
        sign = "≈ " if is_noise and not differs_from_baseline(run, trial) else ""
        return f"{sign}{format_times(ratio)}"

    return cell


def _milliseconds(field: str) -> Cell:
    def cell(run: RunRecord, trial: TrialRecord) -> str:
        value = getattr(measured(trial), field)
        return MISSING if value is None else format_ms(value)

    return cell


def _interval(run: RunRecord, trial: TrialRecord) -> str:
    low, high = measured(trial).latency_low_ms, measured(trial).latency_high_ms
    if low is None or high is None:
        return MISSING
    # the untouched model is compared with itself: how far two timings of one model lie apart
    again = ", timed again" if trial.role == "baseline" else ""
    return f"{format_ms(low)} to {format_ms(high)}{again}"


def _megabytes(n_bytes: int | None) -> str:
    return MISSING if n_bytes is None else f"{n_bytes / 1e6:.1f} MB"


_TUNING: Final = {0: "none", 1: "brief", 2: "full"}
_BOTH: Final = ("size", "latency")
COLUMNS: Final = (
    Column(title="trial", topics=_BOTH, text=lambda run, t: trial_name(t)),
    Column(title="accuracy", topics=_BOTH, text=lambda run, t: format_share(measured(t).accuracy)),
    Column(title="change", topics=_BOTH, text=_change),
    Column(title="size", topics=("size",), text=lambda run, t: format_size(measured(t).size_bytes)),
    Column(title="smaller", topics=("size",), text=_gain("size")),
    Column(title="latency [ms]", topics=("latency",), text=_milliseconds("latency_ms")),
    Column(title="spread [ms]", topics=("latency",), text=_milliseconds("latency_spread_ms")),
    Column(title="95 % interval [ms]", topics=("latency",), text=_interval),
    Column(title="faster", topics=("latency",), text=_gain("latency")),
    Column(
        title="memory",
        topics=("latency",),
        text=lambda run, t: _megabytes(measured(t).peak_memory_bytes),
    ),
    Column(title="breaks a limit", topics=_BOTH, text=_broken),
    Column(title="tuning", topics=(), text=lambda run, t: _tuning(t)),
    Column(title="divergence", topics=(), text=lambda run, t: _nats(measured(t).divergence)),
    Column(title="loss", topics=(), text=lambda run, t: f"{measured(t).loss:.4g}"),
    Column(title="MACs", topics=(), text=lambda run, t: format_count(measured(t).macs)),
    Column(title="parameters", topics=(), text=lambda run, t: format_count(measured(t).n_params)),
    Column(title="seconds", topics=(), text=lambda run, t: f"{measured(t).seconds:.1f}"),
    Column(title="plan", topics=(), text=lambda run, t: t.plan.digest),
)
