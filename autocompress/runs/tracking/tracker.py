"""What a tracker is told, and what it must do."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any, Final, Protocol

from autocompress.objective import Objective, all_costs
from autocompress.report.findings import cheapest_within, cost_of, gain
from autocompress.run_record import RunRecord, State, TrialRecord

_FIGURES: Final = (
    *("accuracy", "loss", "divergence", "untuned_divergence", "size_bytes", "latency_ms"),
    *("latency_spread_ms", "peak_memory_bytes", "macs", "n_params", "seconds"),
    *("train_images_per_s", "speedup"),
)
_IDENTITY: Final = ("started", "seed", "sampler", "model", "space", "objectives")


def _best_name(cost: Objective) -> str:
    return "_".join(filter(None, (cost.best, "within_1pt", cost.unit)))


PROGRESS: Final = ("hypervolume", *map(_best_name, all_costs()), "n_failed")
"""What is followed over the trials of a run."""
METRICS: Final = tuple(
    dict.fromkeys((*_FIGURES, *(name for c in all_costs() for name in (c.field, c.ratio) if name)))
)
"""What is measured on a trial."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrackedRun:
    """A run as trackers see it.

    Attributes:
        name: Name of the run folder.
        folder: The run folder.
        key: Tells its study from every other one, and stays the same when it is resumed.
        tags: Versions, objectives and the like, as text.
        knobs: Name -> levels.
    """

    name: str
    folder: Path
    key: str
    tags: Mapping[str, str]
    knobs: Mapping[str, tuple[float | str, ...]]

    @classmethod
    def of(cls, run: RunRecord) -> "TrackedRun":
        """The plain facts of a run; its task's arguments are not among them."""
        told = {name: run.info.get(name) for name in _IDENTITY}
        digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
        return cls(
            name=run.name,
            folder=run.folder,
            key=digest[:16],
            tags=_tags(run),
            knobs={knob.name: knob.levels for knob in run.knobs},
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrackedTrial:
    """A finished trial as trackers see it.

    Attributes:
        number: Of the trial.
        label: What tables call it.
        role: Of the trial.
        state: `complete`, `failed` or `stopped`.
        reason: Why it is not complete; empty if it is.
        levels: Knob -> level that was asked for; what stays untouched is left out.
        metrics: What was measured, by names in `METRICS`; what was not is left out.
    """

    number: int
    label: str
    role: str
    state: State
    reason: str
    levels: Mapping[str, float | str]
    metrics: Mapping[str, float]

    @classmethod
    def of(cls, run: RunRecord, trial: TrialRecord) -> "TrackedTrial":
        """The plain facts of a trial."""
        levels = {
            knob.name: knob.levels[trial.levels[knob.name]]
            for knob in run.knobs
            if trial.levels.get(knob.name)
        }
        figures = {
            **{name: getattr(trial.measurement, name, None) for name in METRICS},
            **{cost.ratio: gain(run, trial, cost) for cost in all_costs() if cost.ratio},
        }
        return cls(
            number=trial.number,
            label=trial.label,
            role=trial.role,
            state=trial.state,
            reason=trial.reason or "",
            levels=levels,
            metrics={name: float(value) for name, value in figures.items() if value is not None},
        )


class Tracker(Protocol):
    """Writes trials where another tool finds them. Used by one thread at a time."""

    def open(self, run: TrackedRun) -> Set[int]:
        """Get ready.

        Returns:
            Numbers of the trials it has already, from earlier sessions.

        Raises:
            InputError: If it cannot write where it is told to.
        """
        ...

    def log(self, trial: TrackedTrial, progress: Mapping[str, float], step: int) -> None:
        """Write a finished trial.

        Args:
            trial: What became of it.
            progress: The run with this trial, by names in `PROGRESS`.
            step: How many trials have been written with it.

        Raises:
            AutocompressError: If it cannot.
        """
        ...

    def close(self) -> None:
        """Finish.

        Raises:
            AutocompressError: If it cannot.
        """
        ...


def progress_of(run: RunRecord, numbers: Set[int]) -> dict[str, float]:
    """What some trials of a run amount to; figures that do not exist are left out."""
    part = dataclasses.replace(run, trials=tuple(t for t in run.trials if t.number in numbers))
    found: dict[str, float | None] = {"n_failed": sum(t.state == "failed" for t in part.trials)}
    if part.baseline is not None:
        found["hypervolume"] = part.hypervolume(part.front())
        for cost in run.shown_costs:
            best = cheapest_within(part, part.feasible, cost)
            found[_best_name(cost)] = None if best is None else cost_of(best, cost)
    return {name: float(value) for name, value in found.items() if value is not None}


def _tags(run: RunRecord) -> dict[str, str]:
    info = run.info
    tags: dict[str, Any] = {
        "objectives": ",".join(objective.name for objective in run.objectives),
        "fidelity": run.fidelity,
        **{name: info.get(name) for name in ("task", "metric", "seed", "sampler", "started")},
        **{f"limits.{name}": value for name, value in run.limits.to_json().items()},
    }
    for group in ("versions", "hardware"):
        tags |= {f"{group}.{name}": value for name, value in info.get(group, {}).items()}
    return {name: str(value) for name, value in tags.items() if value is not None}
