"""What a run found: the best point within a drop, and whether the search beat the controls."""

import dataclasses
import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Literal

import numpy as np

from autocompress.measurement import LEAST_NOISE, Measurement
from autocompress.objective import Noise, Objective
from autocompress.report.wording import format_gain, format_points
from autocompress.run_record import RunRecord, TrialRecord

MAX_DROP = 0.01
"""The drop in accuracy that summaries speak of: one percentage point."""

# Accuracies are ratios of counts: a drop of exactly 1 pt must not fail on its last float digit.
_ROUNDING = 1e-9

Verdict = Literal["better", "level", "worse", "only_search", "only_control", "neither"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The best searched point beside the best control, within the same drop, by one cost.

    Attributes:
        cost: The cost compared.
        search: Cheapest searched point within the drop, if there is one.
        control: Cheapest control within the drop, if there is one; the baseline where it is cheaper
            still: a gain over a control that is slower than doing nothing is none.
        verdict: `better` if the search's point is cheaper by more than the measurement's spread.
        ratio: The controls' cost over the search's; None unless both exist.
        curve_cost: What the curve of one rate penalty reaches between two of its measured points,
            where that is less than the best control; None elsewhere. The search is credited only
            with what lies below it.
    """

    cost: Objective
    search: TrialRecord | None
    control: TrialRecord | None
    verdict: Verdict
    ratio: float | None
    curve_cost: float | None = None


def measured(trial: TrialRecord) -> Measurement:
    """The measurement of a trial that is known to be complete."""
    assert trial.measurement is not None, f"trial {trial.number} has no measurement"
    return trial.measurement


def front_with_baseline(run: RunRecord) -> tuple[TrialRecord, ...]:
    """The front, and above it the baseline where a limit keeps it off: what to compare with."""
    if run.baseline is None or run.is_feasible(run.baseline):
        return run.front()
    return (run.baseline, *run.front())


def cost_objectives(run: RunRecord) -> tuple[Objective, ...]:
    """The run's objectives without accuracy."""
    return tuple(o for o in run.objectives if o.is_cost)


def cost_of(trial: TrialRecord, cost: Objective) -> float | None:
    """A trial's cost; None if it was not measured."""
    return None if trial.measurement is None else getattr(trial.measurement, cost.field)


def accuracy_change(run: RunRecord, trial: TrialRecord) -> float | None:
    """Accuracy minus the baseline's, as a share; None without a baseline or a measurement."""
    if run.baseline is None or trial.measurement is None:
        return None
    return trial.measurement.accuracy - measured(run.baseline).accuracy


def gain(run: RunRecord, trial: TrialRecord, cost: Objective) -> float | None:
    """The baseline's cost over this trial's: 2.0 is half the size, or twice the speed.

    A noisy cost is compared with the baseline's of the same interleaved measurement, not with the
    one taken at the start of the run, so that a slower hour of the machine does not count. None
    where a figure is missing, or a ratio means nothing.
    """
    value = cost_of(trial, cost)
    if cost.noise is not None:
        base = getattr(trial.measurement, cost.noise.baseline, None)
    else:
        base = None if run.baseline is None else cost_of(run.baseline, cost)
    return base / value if cost.ratio and base is not None and value else None


def cheapest_within(
    run: RunRecord, trials: Iterable[TrialRecord], cost: Objective, max_drop: float = MAX_DROP
) -> TrialRecord | None:
    """The cheapest of `trials` that loses at most `max_drop` of accuracy; never the baseline.

    Args:
        run: Gives the baseline.
        trials: Candidates; those without this cost are passed over.
        cost: What to minimise.
        max_drop: Allowed loss of accuracy, a share: 0.01 is one point.
    """
    best: tuple[float, float, TrialRecord] | None = None
    for trial in trials:
        value, change = cost_of(trial, cost), accuracy_change(run, trial)
        if trial.role == "baseline" or value is None or change is None:
            continue
        if change < -max_drop - _ROUNDING:
            continue
        if best is None or (value, -change) < best[:2]:
            best = (value, -change, trial)
    return None if best is None else best[2]


def headline(run: RunRecord, cost: Objective) -> str:
    """The finding in one line, such as `9.8× smaller at −0.4 pt`."""
    if run.baseline is None:
        return "No baseline to compare with"
    if all(trial.role == "baseline" for trial in run.comparable):
        return "Nothing but the baseline is measured yet"
    if run.nearest_miss() is not None:
        return "No compressed point keeps the limits"
    trial = cheapest_within(run, run.feasible, cost)
    ratio = None if trial is None else gain(run, trial, cost)
    if trial is None or ratio is None:
        return "No point within 1 pt of the baseline"
    change = accuracy_change(run, trial)
    assert change is not None
    if not is_told_apart(run, trial, run.baseline, cost):
        return f"No point within 1 pt is measurably {cost.better}"
    text = f"{format_gain(ratio, cost)} at {format_points(change)}"
    return text[0].upper() + text[1:]


def compare_with_controls(
    run: RunRecord, cost: Objective, max_drop: float = MAX_DROP
) -> Comparison:
    """Set the best searched point beside the best alternative, both within the same drop.

    That is a control, or the original model where no control is cheaper. Controls without tuning
    compete as well: to beat the search with less training is to beat it. Neither may break a limit
    of the run.
    """
    searched = [t for t in run.feasible if t.role == "search"]
    search = cheapest_within(run, searched, cost, max_drop)
    controls = [t for t in run.controls if run.is_feasible(t)]
    control = cheapest_within(run, controls, cost, max_drop)
    if control is not None and run.baseline is not None:
        control = min(control, run.baseline, key=lambda t: _cost_or_infinity(t, cost))
    verdict: Verdict
    ratio, curve_cost = None, None
    if search is None or control is None:
        verdict = "only_search" if search else "only_control" if control else "neither"
    else:
        ours, theirs = cost_of(search, cost), cost_of(control, cost)
        assert ours is not None
        assert theirs is not None
        is_level = not is_told_apart(run, search, control, cost)
        between = _cost_on_curve(run, cost, max_drop)
        if between is not None and between < theirs:
            theirs = curve_cost = between
            is_level = ours == between
        verdict = "level" if is_level else "better" if theirs > ours else "worse"
        ratio = theirs / ours
    return Comparison(
        cost=cost,
        search=search,
        control=control,
        verdict=verdict,
        ratio=ratio,
        curve_cost=curve_cost,
    )


def _cost_or_infinity(trial: TrialRecord, cost: Objective) -> float:
    value = cost_of(trial, cost)
    return math.inf if value is None else value


def penalty_curve(run: RunRecord) -> tuple[TrialRecord, ...]:
    """Controls with one rate penalty and nothing else, the mildest first."""
    found = [
        (next(iter(t.plan.layers.values())).rate_price, t)
        for t in tuned_controls(run)
        if t.plan.has_prices
        and not t.plan.loses_weights
        and len({layer.rate_price for layer in t.plan.layers.values()}) == 1
    ]
    return tuple(trial for _, trial in sorted(found, key=lambda pair: pair[0]))


def _cost_on_curve(run: RunRecord, cost: Objective, max_drop: float) -> float | None:
    """What one rate penalty costs at just this loss, between two that were measured.

    Logarithms of the cost are interpolated over what the accuracy is worth. None for noisy costs,
    which a rate penalty hardly changes, and where the loss lies beyond the measured points.
    """
    curve = penalty_curve(run)
    if cost.noise is not None or run.baseline is None or len(curve) < 2:
        return None
    wanted = measured(run.baseline).accuracy - max_drop
    for milder, stronger in pairwise(curve):
        above, below = measured(milder).accuracy, measured(stronger).accuracy
        ends = cost_of(milder, cost), cost_of(stronger, cost)
        if below < wanted < above and ends[0] is not None and ends[1] is not None:
            left, right, at = run.accuracy_scale.worth(np.array([above, below, wanted]))
            share = (left - at) / (left - right)
            return float(math.exp((1 - share) * math.log(ends[0]) + share * math.log(ends[1])))
    return None


def tuned_controls(run: RunRecord) -> tuple[TrialRecord, ...]:
    """Controls that had the same training as searched trials and keep the limits."""
    return tuple(t for t in run.feasible if t.role == "control")


def dominated_controls(run: RunRecord) -> tuple[TrialRecord, ...]:
    """Tuned controls that some searched trial beats: no worse in any objective, better in one."""
    searched = run.costs(tuple(t for t in run.feasible if t.role == "search"))
    controls = tuned_controls(run)
    return tuple(
        control
        for control, costs in zip(controls, run.costs(controls), strict=True)
        if ((searched <= costs).all(axis=1) & (searched < costs).any(axis=1)).any()
    )


def is_told_apart(run: RunRecord, one: TrialRecord, other: TrialRecord, cost: Objective) -> bool:
    """Whether two trials differ in a cost by more than measuring it twice does.

    Exact figures do where they are not equal. Of noisy ones the 95 % confidence intervals must lie
    apart, by more than the noise: how far the original model was from itself, measured twice, at
    least 2 %. Runs that kept no intervals have the spread of single measurements instead.
    """
    if cost.noise is None:
        return cost_of(one, cost) != cost_of(other, cost)
    a, b = cost_of(one, cost), cost_of(other, cost)
    assert a is not None
    assert b is not None
    cheaper, dearer = (one, other) if a < b else (other, one)
    high, low = _interval(cheaper, cost.noise)[1], _interval(dearer, cost.noise)[0]
    if high is None or low is None:
        spreads = (getattr(measured(t), cost.noise.spread) or 0.0 for t in (one, other))
        return abs(a - b) > max(spreads)
    return low > (1.0 + noise_of(run, cost)) * high


def differs_from_baseline(run: RunRecord, trial: TrialRecord, cost: Objective) -> bool:
    """Whether a trial's cost is told apart from the original model's."""
    return run.baseline is not None and is_told_apart(run, trial, run.baseline, cost)


def is_level_with_baseline(run: RunRecord, trial: TrialRecord, cost: Objective) -> bool:
    """Whether a gain in a noisy cost may be chance: what tables mark. False for the baseline."""
    is_marked = cost.noise is not None and trial.role != "baseline"
    return is_marked and not differs_from_baseline(run, trial, cost)


def noise_of(run: RunRecord, cost: Objective) -> float:
    """By how much, as a share, the original model was from itself, measured twice; 0 if exact."""
    if cost.noise is None:
        return 0.0
    if run.baseline is None:
        return LEAST_NOISE
    low, high = _interval(run.baseline, cost.noise)
    base = cost_of(run.baseline, cost)
    if base is None or low is None or high is None:
        return LEAST_NOISE
    return max(LEAST_NOISE, max(high / base, base / low) - 1.0)


def range_of(trial: TrialRecord, cost: Objective) -> tuple[float, float]:
    """Where a measured cost lies: its interval, or its spread around it where there is none."""
    value = cost_of(trial, cost)
    assert value is not None
    if cost.noise is None:
        return value, value
    low, high = _interval(trial, cost.noise)
    half = (getattr(trial.measurement, cost.noise.spread) or 0.0) / 2
    return value - half if low is None else low, value + half if high is None else high


def _interval(trial: TrialRecord, noise: Noise) -> tuple[float | None, float | None]:
    return getattr(trial.measurement, noise.low), getattr(trial.measurement, noise.high)
