"""One run as plain data: what reports, tables and exports read. Knows neither Optuna nor torch."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from autocompress.accuracy_scale import AccuracyScale, accuracy_scale
from autocompress.measurement import Fidelity, Measurement
from autocompress.objective import SLACK_HALVINGS, Limits, Objective, all_costs
from autocompress.pareto import knee, non_dominated, running_hypervolume
from autocompress.plan import CompressionPlan
from autocompress.space.search_space import Knob
from autocompress.space.sensitivity_table import SensitivityTable

Role = Literal["baseline", "control", "search"]
State = Literal["complete", "failed", "stopped", "running"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """One trial of a study.

    Attributes:
        number: Optuna's trial number.
        role: `baseline` (untouched), `control` (a plan nobody had to search for) or `search`.
        label: What to call it in tables: `baseline`, `uniform 4 bit`, `trial 17`.
        state: `stopped` if it was not worth tuning; `running` also if the driver died during it.
        levels: Knob name -> level index.
        plan: What was asked for.
        measurement: What came out; None unless complete.
        reason: Why it failed or was stopped, one line; None otherwise.
    """

    number: int
    role: Role
    label: str
    state: State
    levels: Mapping[str, int]
    plan: CompressionPlan
    measurement: Measurement | None
    reason: str | None

    @property
    def is_finished(self) -> bool:
        """Whether it counts towards the budget: complete, failed or stopped."""
        return self.state != "running"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One run: its trials in order of their numbers, and how it was made.

    Attributes:
        name: Name of the run folder.
        folder: The run folder.
        objectives: Axes of the front.
        knobs: Dimensions of the search.
        trials: All trials, also failed, stopped and running ones.
        info: Contents of `run.json`: task, versions, hardware, threads, seeds, fingerprints.
        limits: What a point must keep to be on the front.
        fidelity: Training behind its searched trials; only trials of this fidelity are compared.
        refined: Trials that were trained in full, with those measurements (fidelity 2); they are on
            no front.
        validated: Trials that `validate` trained again for longer, with those measurements; on no
            front either.
        options: What every level of every knob does by itself, if the run has measured it.
    """

    name: str
    folder: Path
    objectives: tuple[Objective, ...]
    knobs: tuple[Knob, ...]
    trials: tuple[TrialRecord, ...]
    info: Mapping[str, Any]
    limits: Limits = dataclasses.field(default_factory=Limits)
    fidelity: Fidelity = 1
    refined: tuple[TrialRecord, ...] = ()
    validated: tuple[TrialRecord, ...] = ()
    options: SensitivityTable | None = None

    @property
    def n_finished(self) -> int:
        """Trials that count towards the budget."""
        return sum(trial.is_finished for trial in self.trials)

    @property
    def seconds(self) -> float:
        """Time that its sensitivity table and its measured trials took, in all sessions.

        What the cache knew of the table took none.
        """
        of_table = 0.0
        if self.options is not None:
            here = self.options.seconds_here
            of_table = self.options.seconds if here is None else here
        return of_table + sum(t.measurement.seconds for t in self.trials if t.measurement)

    def after(self, n_trials: int) -> "RunRecord":
        """The run as it was when its first `n_trials` trials had finished."""
        finished = tuple(trial for trial in self.trials if trial.is_finished)
        return dataclasses.replace(self, trials=finished[:n_trials])

    @property
    def shown_costs(self) -> tuple[Objective, ...]:
        """Costs that figures and tables show where they were measured: its own and default ones."""
        return tuple(c for c in all_costs() if c.is_default or c in self.objectives)

    @property
    def complete(self) -> tuple[TrialRecord, ...]:
        """Trials that finished and measured every objective."""
        return tuple(trial for trial in self.trials if self._is_complete(trial))

    def _is_complete(self, trial: TrialRecord) -> bool:
        return trial.measurement is not None and all(
            getattr(trial.measurement, objective.field) is not None for objective in self.objectives
        )

    @property
    def comparable(self) -> tuple[TrialRecord, ...]:
        """Complete trials of the run's fidelity: those that may meet on one front."""
        return tuple(
            t for t in self.complete if t.measurement and t.measurement.fidelity == self.fidelity
        )

    @property
    def feasible(self) -> tuple[TrialRecord, ...]:
        """Comparable trials that keep every limit."""
        return tuple(trial for trial in self.comparable if self.is_feasible(trial))

    @property
    def baseline(self) -> TrialRecord | None:
        """The original model, if it has been measured."""
        return next((t for t in self.trials if t.role == "baseline" and self._is_complete(t)), None)

    @property
    def accuracy_scale(self) -> AccuracyScale:
        """How much its losses of accuracy count; only with a measured baseline."""
        assert self.baseline is not None
        assert self.baseline.measurement is not None
        metric = str(self.info.get("metric", "accuracy"))
        return accuracy_scale(self.baseline.measurement.accuracy, metric, self.limits.max_drop)

    @property
    def controls(self) -> tuple[TrialRecord, ...]:
        """Measured plans that nobody had to search for."""
        return tuple(t for t in self.complete if t.role == "control")

    def excesses(self, trial: TrialRecord) -> dict[str, float]:
        """By how much a measured trial misses each limit: name -> excess, <= 0 where it is kept.

        While there is no baseline to lose accuracy against, the drop is counted from 1.
        """
        assert trial.measurement is not None
        base = self.baseline.measurement if self.baseline else None
        return self.limits.violations(
            {row.field: getattr(trial.measurement, row.field) for row in self.limits.bounds},
            baseline_accuracy=1.0 if base is None else base.accuracy,
        )

    def violations(self, trial: TrialRecord) -> dict[str, float]:
        """Limits a trial breaks: name -> figure minus limit, > 0; empty if it was not measured."""
        if trial.measurement is None:
            return {}
        return {name: excess for name, excess in self.excesses(trial).items() if excess > 0.0}

    def is_feasible(self, trial: TrialRecord) -> bool:
        """Whether a trial was measured and keeps every limit."""
        return trial.measurement is not None and not self.violations(trial)

    def nearest_miss(self) -> TrialRecord | None:
        """The comparable trial that breaks the limits least; None if one keeps them all.

        Least is the smallest sum of excesses, each over the value that is allowed. The baseline
        does not count: nobody searches for it.
        """
        trials = [t for t in self.comparable if t.role != "baseline"]
        if not trials or any(self.is_feasible(t) for t in trials):
            return None
        return min(trials, key=lambda t: (self._relative_miss(t), t.number))

    def _relative_miss(self, trial: TrialRecord) -> float:
        base = self.baseline.measurement if self.baseline else None
        allowed = {
            row.limit: bound if row.is_cost else (base.accuracy if base else 1.0) - bound
            for row, bound in self.limits.bounds.items()
        }
        return sum(excess / allowed[name] for name, excess in self.violations(trial).items())

    def costs(self, trials: tuple[TrialRecord, ...]) -> NDArray[np.float64]:
        """Objective values of measured trials, signs turned so that smaller is better; (N, M)."""
        rows = [
            [
                getattr(t.measurement, o.field) * (-1.0 if o.direction == "maximize" else 1.0)
                for o in self.objectives
            ]
            for t in trials
        ]
        return np.array(rows, dtype=np.float64).reshape(len(trials), len(self.objectives))

    def front(self) -> tuple[TrialRecord, ...]:
        """Feasible trials of the run's fidelity that no other beats, most accurate first.

        The baseline counts as a point: it is what "change nothing" costs. Of trials with equal
        figures only one is kept: that whose outputs diverge least from the base model's, else the
        first.
        """
        trials = self.feasible
        costs = self.costs(trials)
        kept: dict[tuple[float, ...], TrialRecord] = {}
        for trial, point, is_kept in zip(trials, costs.tolist(), non_dominated(costs), strict=True):
            rival = kept.get(tuple(point))
            if is_kept and (rival is None or _divergence(trial) < _divergence(rival)):
                kept[tuple(point)] = trial
        return tuple(sorted(kept.values(), key=_by_accuracy))

    def knee(self) -> TrialRecord | None:
        """The front's best trade-off, or None if nothing has been measured.

        Only points are considered whose accuracy is worth something (see `AccuracyScale`), or the
        most accurate one if there are none. Costs count as logarithms: half is half, wherever.
        """
        front = self.front()
        if not front:
            return None
        if self.baseline is None or self.baseline.measurement is None:
            return front[knee(self.costs(front))]
        is_accuracy = np.array([o.direction == "maximize" for o in self.objectives])
        points = self._relative_costs(front, is_accuracy)
        spans = np.where(is_accuracy, 1.0, np.nan)
        within = np.flatnonzero(~(points > spans + 1e-9).any(axis=1))
        return front[within[knee(points[within], spans)]] if len(within) else front[0]

    def hypervolume(self, trials: tuple[TrialRecord, ...]) -> float:
        """What measured trials dominate beyond the baseline, in halvings of the cost.

        Costs count as binary logarithms of their ratio to the baseline's, so that from 8 to 16
        times smaller is as much as from 1 to 2; so do losses of accuracy, down to what is worth
        nothing (see `AccuracyScale`). With one cost the value is the mean number of halvings over
        that range. With several it is the mean volume, and a point may cost up to `SLACK_HALVINGS`
        more than the baseline in one of them.

        Args:
            trials: Measured trials of a run whose baseline is measured, too.
        """
        return self.running_hypervolume(trials)[-1] if trials else 0.0

    def running_hypervolume(self, trials: tuple[TrialRecord, ...]) -> list[float]:
        """`hypervolume` of the first of `trials`, of the first two, and so on."""
        slack = SLACK_HALVINGS if len(self.objectives) > 2 else 0.0
        is_accuracy = np.array([o.direction == "maximize" for o in self.objectives])
        points = self._relative_costs(trials, is_accuracy)
        untouched = np.zeros((1, len(self.objectives)))
        reference = np.where(is_accuracy, 1.0, slack)
        volumes = running_hypervolume(np.concatenate([untouched, points]), reference)
        return [volume - volumes[0] for volume in volumes[1:]]

    def _relative_costs(
        self, trials: tuple[TrialRecord, ...], is_accuracy: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """What losses of accuracy take off, and log2 of costs over the baseline's; (N, M)."""
        assert self.baseline is not None
        base, costs = self.costs((self.baseline,))[0], self.costs(trials)
        tiny = np.finfo(np.float64).tiny
        lost = 1.0 - self.accuracy_scale.worth(-costs)
        halvings = np.log2(np.maximum(costs, tiny) / np.maximum(base, tiny))
        return np.where(is_accuracy, lost, halvings)


def _by_accuracy(trial: TrialRecord) -> tuple[float, int, int]:
    assert trial.measurement is not None
    return (-trial.measurement.accuracy, trial.measurement.size_bytes, trial.number)


def _divergence(trial: TrialRecord) -> float:
    """For comparing only: a trial without one comes last."""
    assert trial.measurement is not None
    divergence = trial.measurement.divergence
    return math.inf if divergence is None else divergence
