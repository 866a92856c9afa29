"""One run as plain data: what reports, tables and exports read. Knows neither Optuna nor torch."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from autocompress.measurement import Measurement
from autocompress.objective import Objective
from autocompress.pareto import knee, non_dominated
from autocompress.plan import CompressionPlan
from autocompress.space.search_space import Knob

Role = Literal["baseline", "control", "search"]
State = Literal["complete", "failed", "running"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """One trial of a study.

    Attributes:
        number: Optuna's trial number.
        role: `baseline` (untouched), `control` (a plan nobody had to search for) or `search`.
        label: What to call it in tables: `baseline`, `uniform 4 bit`, `trial 17`.
        state: `running` also if the driver died during this trial.
        levels: Knob name -> level index.
        plan: What was asked for.
        measurement: What came out; None unless complete.
        reason: Why it failed, one line; None unless failed.
    """

    number: int
    role: Role
    label: str
    state: State
    levels: Mapping[str, int]
    plan: CompressionPlan
    measurement: Measurement | None
    reason: str | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One run: its trials in order of their numbers, and how it was made.

    Attributes:
        name: Name of the run folder.
        folder: The run folder.
        objectives: Axes of the front.
        knobs: Dimensions of the search.
        trials: All trials, also failed and running ones.
        info: Contents of `run.json`: task, versions, hardware, threads, seeds, fingerprints.
    """

    name: str
    folder: Path
    objectives: tuple[Objective, ...]
    knobs: tuple[Knob, ...]
    trials: tuple[TrialRecord, ...]
    info: Mapping[str, Any]

    @property
    def complete(self) -> tuple[TrialRecord, ...]:
        """Trials that finished and measured every objective."""
        return tuple(trial for trial in self.trials if self._is_complete(trial))

    def _is_complete(self, trial: TrialRecord) -> bool:
        return trial.measurement is not None and all(
            getattr(trial.measurement, objective.field) is not None for objective in self.objectives
        )

    @property
    def baseline(self) -> TrialRecord | None:
        """The untouched model, if it has been measured."""
        return next((t for t in self.trials if t.role == "baseline" and self._is_complete(t)), None)

    @property
    def controls(self) -> tuple[TrialRecord, ...]:
        """Measured plans that nobody had to search for."""
        return tuple(t for t in self.complete if t.role == "control")

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
        """Non-dominated trials of fidelity 1, most accurate first.

        The baseline counts as a point: it is what "change nothing" costs. Of trials with equal
        figures only the first is kept.
        """
        trials = tuple(t for t in self.complete if t.measurement and t.measurement.fidelity == 1)
        costs = self.costs(trials)
        _, first = np.unique(costs, axis=0, return_index=True)
        is_first = np.isin(np.arange(len(trials)), first)
        kept = np.flatnonzero(non_dominated(costs) & is_first)
        return tuple(sorted((trials[i] for i in kept), key=_by_accuracy))

    def knee(self) -> TrialRecord | None:
        """The front's best trade-off, or None if nothing has been measured."""
        front = self.front()
        return front[knee(self.costs(front))] if front else None


def _by_accuracy(trial: TrialRecord) -> tuple[float, int]:
    assert trial.measurement is not None
    return (-trial.measurement.accuracy, trial.measurement.size_bytes)
