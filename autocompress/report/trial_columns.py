"""What a table says of a measured trial: a column for each figure. Nothing here is escaped."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from autocompress.objective import LATENCY, Noise, Objective
from autocompress.quantities import format_count, format_share
from autocompress.report.findings import (
    accuracy_change,
    cost_of,
    gain,
    is_level_with_baseline,
    measured,
)
from autocompress.report.theme import axis_title
from autocompress.report.wording import format_points, format_times, violation_words
from autocompress.run_record import RunRecord, TrialRecord

Cell = Callable[[RunRecord, TrialRecord], str]
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


def columns_for(run: RunRecord, trials: Sequence[TrialRecord], topic: str = "all") -> list[Column]:
    """The columns of a table of measured trials.

    A cost stands only where it was measured, broken limits only where there are some.

    Args:
        run: Whose trials they are.
        trials: The rows.
        topic: The cost whose table it is, by its name, or `all`.
    """
    costs = [c for c in run.shown_costs if any(cost_of(t, c) is not None for t in trials)]
    every = tuple(cost.name for cost in run.shown_costs)
    columns = [
        Column(title="trial", topics=every, text=lambda run, t: trial_name(t)),
        Column(
            title="accuracy", topics=every, text=lambda run, t: format_share(measured(t).accuracy)
        ),
        Column(title="change", topics=every, text=_change),
        *(column for cost in costs for column in _columns_of(cost)),
    ]
    if LATENCY in costs:  # memory is taken while the model is timed
        columns.append(Column(title="memory", topics=(LATENCY.name,), text=_memory))
    if any(run.violations(t) for t in trials):
        columns.append(Column(title="breaks a limit", topics=every, text=_broken))
    columns += _OF_NO_COST
    return [column for column in columns if topic == "all" or topic in column.topics]


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


def _columns_of(cost: Objective) -> Iterator[Column]:
    """The figure, its noise if it is noisy, and its ratio to the baseline's."""
    quantity, topics = cost.quantity, (cost.name,)
    if quantity.is_whole:
        yield Column(title=cost.name, topics=topics, text=_figure(cost.field, quantity.write))
    else:
        yield Column(
            title=axis_title(cost.name, cost.unit),
            topics=topics,
            text=_figure(cost.field, quantity.write_number),
        )
    if cost.noise is not None:
        yield Column(
            title=axis_title("spread", cost.unit),
            topics=topics,
            text=_figure(cost.noise.spread, quantity.write_number),
        )
        yield Column(
            title=axis_title("95 % interval", cost.unit),
            topics=topics,
            text=_interval(cost.noise, quantity.write_number),
        )
    if cost.ratio:
        yield Column(title=cost.better, topics=topics, text=_gain(cost))


def _figure(field: str, write: Callable[[float], str]) -> Cell:
    def cell(run: RunRecord, trial: TrialRecord) -> str:
        value = getattr(measured(trial), field)
        return MISSING if value is None else write(value)

    return cell


def _interval(noise: Noise, write: Callable[[float], str]) -> Cell:
    def cell(run: RunRecord, trial: TrialRecord) -> str:
        low, high = (getattr(measured(trial), field) for field in (noise.low, noise.high))
        if low is None or high is None:
            return MISSING
        # the original model is compared with itself: how far two timings of it lie apart
        again = ", timed again" if trial.role == "baseline" else ""
        return f"{write(low)} to {write(high)}{again}"

    return cell


def _gain(cost: Objective) -> Cell:
    def cell(run: RunRecord, trial: TrialRecord) -> str:
        ratio = gain(run, trial, cost)
        if ratio is None:
            return MISSING
        sign = "≈ " if is_level_with_baseline(run, trial, cost) else ""
        return f"{sign}{format_times(ratio)}"

    return cell


def _memory(run: RunRecord, trial: TrialRecord) -> str:
    n_bytes = measured(trial).peak_memory_bytes
    return MISSING if n_bytes is None else f"{n_bytes / 1e6:.1f} MB"


_TUNING: Final = {0: "none", 1: "brief", 2: "full"}
_OF_NO_COST: Final = (
    Column(title="tuning", topics=(), text=lambda run, t: _tuning(t)),
    Column(title="divergence", topics=(), text=lambda run, t: _nats(measured(t).divergence)),
    Column(title="loss", topics=(), text=lambda run, t: f"{measured(t).loss:.4g}"),
    Column(title="MACs", topics=(), text=lambda run, t: format_count(measured(t).macs)),
    Column(title="parameters", topics=(), text=lambda run, t: format_count(measured(t).n_params)),
    Column(title="seconds", topics=(), text=lambda run, t: f"{measured(t).seconds:.1f}"),
    Column(title="plan", topics=(), text=lambda run, t: t.plan.digest),
)
