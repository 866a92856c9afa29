"""Several runs side by side: what they found, and which of their figures may be compared."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Final

from autocompress.errors import InputError
from autocompress.objective import Objective, all_costs
from autocompress.report.findings import cheapest_within, cost_of, gain, noise_of, range_of
from autocompress.report.run_differences import Difference, differences, leaves_at
from autocompress.report.search_gain import DROPS
from autocompress.report.tables import trial_json
from autocompress.run_record import RunRecord, TrialRecord

Figure = str
"""`accuracy`, `hypervolume`, or what `figure_at_drop` calls the best points by a cost."""

MAX_RUNS: Final = 6
"""So many colours there are that everybody can tell apart."""

_LEAST_LEAD: Final = 0.005  # share of the smaller file: what is printed as 1.00× is no lead
_ACCURACY: Final = ("metric", "data.val", "fidelity")
_DROP: Final = (*_ACCURACY, "model")
_TIMING: Final = (
    *("settings.runtime", "settings.runtime_threads", "settings.runtime_batch"),
    *("settings.input_shapes", "data.example_inputs", "machine"),
)


def figure_at_drop(cost: Objective) -> Figure:
    """What must be comparable for the best points by a cost to be.

    >>> from autocompress.objective import LATENCY, SIZE
    >>> figure_at_drop(SIZE), figure_at_drop(LATENCY)
    ('size_at_drop', 'speedup_at_drop')
    """
    # of a noisy cost only the ratio to the baseline can be compared with other runs
    return f"{cost.name if cost.noise is None else cost.ratio}_at_drop"


def _must_agree() -> dict[Figure, tuple[str, ...]]:
    """Figure -> what must be the same in `run.json` for it to be comparable."""
    return {
        "accuracy": _ACCURACY,
        **{
            figure_at_drop(cost): _DROP if cost.noise is None else (*_DROP, *_TIMING)
            for cost in all_costs()
        },
        "hypervolume": (*_DROP, "objectives", "limits"),
    }


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BestAtDrop:
    """The cheapest point of each run within one drop of accuracy.

    Attributes:
        cost: The cost compared.
        max_drop: Allowed loss against the run's own baseline, a share.
        trials: Of each run; None where no point loses as little.
        gains: The baseline's cost over the point's, of each run.
        is_comparable: Whether the figure is.
        winner: Place of the run whose point is cheaper than every other's by more than the noise;
            None if there is none, or if the figure is not comparable.
    """

    cost: Objective
    max_drop: float
    trials: tuple[TrialRecord | None, ...]
    gains: tuple[float | None, ...]
    is_comparable: bool
    winner: int | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Several runs side by side.

    Attributes:
        runs: Two to `MAX_RUNS`.
        names: What to call each, all different.
        obstacles: Figure -> why it is not comparable: what differs, or is missing. Empty if it is.
        hypervolumes: Of each run's feasible points; None without a baseline.
        n_equal: Finished trials of the shortest run.
        equal_hypervolumes: The same after so many trials.
        at_drops: By cost, then by drop.
        differences: All that is recorded and not the same.
    """

    runs: tuple[RunRecord, ...]
    names: tuple[str, ...]
    obstacles: dict[Figure, tuple[str, ...]]
    hypervolumes: tuple[float | None, ...]
    n_equal: int
    equal_hypervolumes: tuple[float | None, ...]
    at_drops: tuple[BestAtDrop, ...]
    differences: tuple[Difference, ...]

    def is_comparable(self, figure: Figure) -> bool:
        """Whether nothing stands against comparing a figure."""
        return not self.obstacles[figure]

    def to_json(self) -> dict[str, Any]:
        """Plain containers, for JSON."""
        return {
            "runs": [self._run_json(place) for place in range(len(self.runs))],
            "n_equal_trials": self.n_equal,
            "not_comparable": {f: list(why) for f, why in self.obstacles.items() if why},
            "at_drops": [
                {
                    "cost": row.cost.field,
                    "max_drop": row.max_drop,
                    "points": [
                        None if t is None else {**trial_json(run, t), "gain": gain_}
                        for run, t, gain_ in zip(self.runs, row.trials, row.gains, strict=True)
                    ],
                    "best": None if row.winner is None else self.names[row.winner],
                }
                for row in self.at_drops
            ],
            "differences": [dataclasses.asdict(row) for row in self.differences],
        }

    def _run_json(self, place: int) -> dict[str, Any]:
        run = self.runs[place]
        return {
            "name": self.names[place],
            "folder": str(run.folder),
            "n_finished": run.n_finished,
            "n_on_front": len(run.front()),
            "baseline": None if run.baseline is None else trial_json(run, run.baseline),
            "hypervolume": self.hypervolumes[place],
            "hypervolume_after_equal_trials": self.equal_hypervolumes[place],
        }


def compare_runs(runs: Sequence[RunRecord]) -> Comparison:
    """Put runs side by side.

    Args:
        runs: Each with at least one finished trial.

    Raises:
        InputError: If there are fewer than two or more than `MAX_RUNS`, or one comes twice.
    """
    if not 2 <= len(runs) <= MAX_RUNS:
        raise InputError(
            f"`compare` needs 2 to {MAX_RUNS} runs, but got {len(runs)}.",
            "Name them: autocompress compare RUN_A RUN_B. `autocompress studies` lists those there "
            "are.",
        )
    folders = [run.folder.resolve() for run in runs]
    twice = next((run for run, f in zip(runs, folders, strict=True) if folders.count(f) > 1), None)
    if twice is not None:
        raise InputError(
            f"`compare` needs different runs, but {str(twice.folder)!r} is named twice.",
            "`autocompress studies` lists those there are.",
        )
    plain = [run.name for run in runs]
    names = [r.name if plain.count(r.name) == 1 else str(r.folder) for r in runs]
    obstacles: dict[Figure, tuple[str, ...]] = {
        figure: (*_missing(figure, runs, names), *_disagreeing(keys, runs))
        for figure, keys in _must_agree().items()
    }
    if any(o.noise for run in runs for o in run.objectives):  # timing is part of what it sums up
        timing = tuple(w for w in _disagreeing(_TIMING, runs) if w not in obstacles["hypervolume"])
        obstacles["hypervolume"] += timing
    n_equal = min(run.n_finished for run in runs)
    return Comparison(
        runs=tuple(runs),
        names=tuple(names),
        obstacles=obstacles,
        hypervolumes=tuple(_hypervolume(run) for run in runs),
        n_equal=n_equal,
        equal_hypervolumes=tuple(_hypervolume(run.after(n_equal)) for run in runs),
        at_drops=tuple(
            _best(runs, cost, drop, is_comparable=not obstacles[figure_at_drop(cost)])
            for cost in all_costs()
            if any(cost in r.shown_costs for r in runs)
            and any(cost_of(t, cost) is not None for r in runs for t in r.feasible)
            for drop in DROPS
        ),
        differences=differences(runs),
    )


def _missing(figure: Figure, runs: Sequence[RunRecord], names: Sequence[str]) -> list[str]:
    """What a run lacks for a figure, in words."""
    lacking = []
    if figure != "accuracy":
        lacking = [
            f"{n} has no baseline" for n, r in zip(names, runs, strict=True) if not r.baseline
        ]
    for cost in all_costs():
        if figure == figure_at_drop(cost):
            lacking += [
                f"{name} measured no {cost.name}"
                for name, run in zip(names, runs, strict=True)
                if not any(cost_of(t, cost) is not None for t in run.complete)
            ]
    return lacking


def _disagreeing(keys: Sequence[str], runs: Sequence[RunRecord]) -> list[str]:
    """Those of `keys` (and of what lies below them) that are not the same in all runs."""
    found: list[str] = []
    for key in keys:
        said = [leaves_at(run.info, key) for run in runs]
        names = dict.fromkeys(name for leaves in said for name in leaves)
        found += [n for n in names if any(s.get(n) != said[0].get(n) for s in said)]
    return found


def _hypervolume(run: RunRecord) -> float | None:
    return None if run.baseline is None else run.hypervolume(run.feasible)


def _best(
    runs: Sequence[RunRecord], cost: Objective, max_drop: float, *, is_comparable: bool
) -> BestAtDrop:
    trials = tuple(cheapest_within(run, run.feasible, cost, max_drop) for run in runs)
    gains = tuple(
        None if trial is None else gain(run, trial, cost)
        for run, trial in zip(runs, trials, strict=True)
    )
    return BestAtDrop(
        cost=cost,
        max_drop=max_drop,
        trials=trials,
        gains=gains,
        is_comparable=is_comparable,
        winner=_winner(runs, cost, trials) if is_comparable else None,
    )


def _winner(
    runs: Sequence[RunRecord], cost: Objective, trials: Sequence[TrialRecord | None]
) -> int | None:
    """Place of the run that is ahead of every other, told apart from it."""
    ranges = {
        place: _relative_range(trial, cost)
        for place, trial in enumerate(trials)
        if trial is not None and cost_of(trial, cost) is not None
    }
    if not ranges:
        return None
    best = min(ranges, key=lambda place: ranges[place][1])
    noise = _LEAST_LEAD if cost.noise is None else max(noise_of(run, cost) for run in runs)
    reach = ranges[best][1] * (1.0 + noise)
    return best if all(low > reach for p, (low, _) in ranges.items() if p != best) else None


def _relative_range(trial: TrialRecord, cost: Objective) -> tuple[float, float]:
    """Lowest and highest value of a cost.

    Times of different hours do not compare; their ratios to the baseline timed in between do, each
    with its 95 % interval (or spread, where there is no interval).
    """
    low, high = range_of(trial, cost)
    if cost.noise is None:
        return low, high
    base = getattr(trial.measurement, cost.noise.baseline) or getattr(trial.measurement, cost.field)
    return low / base, high / base
