"""What searching gained over the controls, in one run and over its repeats with other seeds."""

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import Any, Final, Literal

from autocompress.objective import Objective
from autocompress.report.findings import (
    Verdict,
    compare_with_controls,
    cost_objectives,
    cost_of,
    gain,
)
from autocompress.run_record import RunRecord, TrialRecord

DROPS: Final = (0.0, 0.005, 0.01, 0.02)
"""Losses of accuracy, as shares, at which the cheapest points are compared."""

# 97.5 % points of Student's t with 1, 2, ... 10 degrees of freedom; the last serves beyond
_T_975: Final = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)

Side = Literal["search", "controls", "both"]
SIDES: Final[tuple[Side, ...]] = ("search", "controls", "both")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """One figure of several runs.

    Attributes:
        values: The figure in each run, None where it does not exist.
    """

    values: tuple[float | None, ...]

    @property
    def known(self) -> tuple[float, ...]:
        """The figures that exist."""
        return tuple(value for value in self.values if value is not None)

    @property
    def mean(self) -> float | None:
        """Their mean; None if there are none."""
        return statistics.fmean(self.known) if self.known else None

    @property
    def deviation(self) -> float | None:
        """Their sample standard deviation (n - 1); None for fewer than two."""
        return statistics.stdev(self.known) if len(self.known) > 1 else None

    def to_json(self) -> dict[str, Any]:
        """Plain containers: `values`, `n`, `mean`, `standard_deviation`."""
        return {
            "values": list(self.values),
            "n": len(self.known),
            "mean": self.mean,
            "standard_deviation": self.deviation,
        }


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GainAtDrop:
    """The cheapest points within one drop of accuracy.

    Attributes:
        cost: The cost compared.
        max_drop: Allowed loss of accuracy, a share.
        search: Cost of the best searched point, per run.
        controls: Cost of the best control per run, or of the curve of one rate penalty between
            two of its points where that is less.
        ratio: The control's cost over the searched point's: above 1 the search is cheaper.
        verdicts: What `compare_with_controls` says of each run.
    """

    cost: Objective
    max_drop: float
    search: Spread
    controls: Spread
    ratio: Spread
    verdicts: tuple[Verdict, ...]

    @property
    def is_clear(self) -> bool:
        """Whether the ratio is farther from 1 than chance carries it.

        Over several seeds: whether the 95 % interval of the mean logarithm (Student's t) leaves 1
        out, and every seed has a ratio. In one run: whether the two points differ by more than the
        spread of their measurements.
        """
        if self.ratio.mean is None or len(self.ratio.known) < len(self.ratio.values):
            return False
        if len(self.ratio.known) == 1:
            return "level" not in self.verdicts
        logs = [math.log(ratio) for ratio in self.ratio.known]
        n = len(logs)
        reach = _T_975[min(n - 2, len(_T_975) - 1)] * statistics.stdev(logs) / math.sqrt(n)
        return abs(statistics.fmean(logs)) > reach


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SearchGain:
    """Search against controls, per run.

    Attributes:
        seeds: Seeds of the runs; None where a run recorded none.
        n_trials: Finished trials of each.
        n_searched: Measured searched trials of the first run, and
        n_controls: its measured controls, untuned ones included.
        hypervolumes: Hypervolume of searched trials, of equally tuned controls, and of both.
        at_drops: By cost, then by drop.
    """

    seeds: tuple[int | None, ...]
    n_trials: int
    n_searched: int
    n_controls: int
    hypervolumes: dict[Side, Spread]
    at_drops: tuple[GainAtDrop, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain containers, for JSON."""
        return {
            "seeds": list(self.seeds),
            "n_trials": self.n_trials,
            "hypervolume": {side: spread.to_json() for side, spread in self.hypervolumes.items()},
            "at_drops": [
                {
                    "cost": row.cost.field,
                    "max_drop": row.max_drop,
                    "search": row.search.to_json(),
                    "controls": row.controls.to_json(),
                    "ratio": row.ratio.to_json(),
                }
                for row in self.at_drops
            ],
        }


def search_gain(run: RunRecord, repeats: Sequence[RunRecord] = ()) -> SearchGain | None:
    """Compare searched trials with controls, by hypervolume and by cost at equal accuracy.

    Args:
        run: The run.
        repeats: The same with other seeds and as many trials (see `search.repeats`); those without
            a baseline are left out.

    Returns:
        None if the run has no baseline, no searched trial or no control to compare.
    """
    searched = [t for t in run.comparable if _is_searched(t)]
    if run.baseline is None or not searched or not run.controls:
        return None
    runs = (run, *(repeat for repeat in repeats if repeat.baseline is not None))
    return SearchGain(
        seeds=tuple(r.info.get("seed") for r in runs),
        n_trials=run.n_finished,
        n_searched=len(searched),
        n_controls=len(run.controls),
        hypervolumes={
            side: Spread(values=tuple(_hypervolume(r, side) for r in runs)) for side in SIDES
        },
        at_drops=tuple(
            _at_drop(runs, cost, drop) for cost in cost_objectives(run) for drop in DROPS
        ),
    )


def _is_searched(trial: TrialRecord) -> bool:
    return trial.role not in ("baseline", "control")


def _hypervolume(run: RunRecord, side: Side) -> float:
    """Hypervolume (see `RunRecord.hypervolume`) of one side; the baseline adds nothing to any."""
    chosen = {
        "search": _is_searched,
        "controls": lambda trial: trial.role == "control",
        "both": lambda trial: True,
    }[side]
    return run.hypervolume(tuple(t for t in run.feasible if chosen(t)))


def _at_drop(runs: Sequence[RunRecord], cost: Objective, max_drop: float) -> GainAtDrop:
    searched, controls, ratios, verdicts = [], [], [], []
    for run in runs:
        found = compare_with_controls(run, cost, max_drop)
        ours, theirs = (
            None if trial is None else _cost_beside(runs[0], run, trial, cost)
            for trial in (found.search, found.control)
        )
        theirs = theirs if found.curve_cost is None else found.curve_cost
        searched.append(ours)
        controls.append(theirs)
        ratios.append(None if ours is None or theirs is None else theirs / ours)
        verdicts.append(found.verdict)
    return GainAtDrop(
        cost=cost,
        max_drop=max_drop,
        search=Spread(values=tuple(searched)),
        controls=Spread(values=tuple(controls)),
        ratio=Spread(values=tuple(ratios)),
        verdicts=tuple(verdicts),
    )


def _cost_beside(
    first: RunRecord, run: RunRecord, trial: TrialRecord, cost: Objective
) -> float | None:
    """A trial's cost on the scale of the first run.

    Noisy figures of another run were taken in another hour of the machine: only their ratio to the
    baseline measured in between is compared, times the first run's baseline.
    """
    if cost.noise is None or run is first:
        return cost_of(trial, cost)
    assert first.baseline is not None
    ratio, base = gain(run, trial, cost), cost_of(first.baseline, cost)
    return None if ratio is None or base is None else base / ratio
