"""A trial that waits to be evaluated."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

import optuna
from optuna.trial import FrozenTrial, TrialState

from autocompress.measurement import Fidelity, Measurement
from autocompress.run_record import RunRecord
from autocompress.samplers.guided.probed_plan import ProbedPlan, probed_plans_in
from autocompress.samplers.propose import distributions_of
from autocompress.space.search_space import SearchSpace
from autocompress.study.identity import current_label


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrialHistory:
    """A study's trials at one moment.

    Attributes:
        trials: All of them, in order of their numbers.
        fidelity: Of the run.
    """

    trials: Sequence[FrozenTrial]
    fidelity: Fidelity

    @property
    def complete(self) -> list[FrozenTrial]:
        """Complete trials of the run's fidelity; they carry their constraints."""
        complete = (trial for trial in self.trials if trial.state == TrialState.COMPLETE)
        return [trial for trial in complete if trial.user_attrs["fidelity"] == self.fidelity]

    @property
    def running(self) -> list[FrozenTrial]:
        """Trials that are being evaluated."""
        return [trial for trial in self.trials if trial.state == TrialState.RUNNING]

    @property
    def failed(self) -> list[dict[str, int]]:
        """Levels of failed trials."""
        return self._levels_of(TrialState.FAIL)

    @property
    def stopped(self) -> list[dict[str, int]]:
        """Levels of trials that were not worth tuning."""
        return self._levels_of(TrialState.PRUNED)

    @property
    def probes(self) -> list[ProbedPlan]:
        """All plans that were probed, to choose a trial or as one that was stopped, in order."""
        return [probed for trial in self.trials for probed in probed_plans_in(trial.user_attrs)]

    def _levels_of(self, state: TrialState) -> list[dict[str, int]]:
        trials = (trial for trial in self.trials if trial.state == state)
        return [{name: int(level) for name, level in trial.params.items()} for trial in trials]


_MILLISECONDS: Final = ("latency_ms", "latency_spread_ms", "latency_low_ms", "latency_high_ms")


def running_trial(
    space: SearchSpace,
    levels: Mapping[str, int],
    probes: Sequence[ProbedPlan],
    facts: Mapping[str, Any],
) -> FrozenTrial:
    """A trial that is being evaluated for the first time.

    Args:
        space: The knobs.
        levels: Knob name -> level index.
        probes: What was probed to choose it.
        facts: What else to say of it.
    """
    return optuna.trial.create_trial(
        state=TrialState.RUNNING,
        params=dict(levels),
        distributions=distributions_of(space),
        user_attrs={
            **facts,
            "attempts": 1,
            "plan": space.decode(levels).to_json(),
            **({"looks": [dataclasses.asdict(probed) for probed in probes]} if probes else {}),
        },
    )


def on_one_scale(measurement: Measurement, baseline: FrozenTrial) -> Measurement:
    """A measurement in milliseconds of the study's baseline: another machine may have taken it.

    Args:
        measurement: With the latency of the original model where it was taken.
        baseline: First trial of the study; if it has not been measured yet, nothing changes.
    """
    told, own = baseline.user_attrs.get("measurement"), measurement.baseline_latency_ms
    base = Measurement.from_json(told).baseline_latency_ms if told else None
    if base is None or own is None or base == own or measurement.latency_ms is None:
        return measurement
    figures = {name: getattr(measurement, name) for name in _MILLISECONDS}
    scaled: dict[str, Any] = {
        name: None if ms is None else ms * base / own for name, ms in figures.items()
    }
    return dataclasses.replace(measurement, **scaled, baseline_latency_ms=base)


def constrain(study: optuna.Study, run: RunRecord, number: int, measurement: Measurement) -> None:
    """Write by how much a trial misses each limit, as constraints.

    Args:
        study: Where to.
        run: Its record; says what the limits are, and what the baseline measured.
        number: Of the trial.
        measurement: What the trial is about to be told.
    """
    told = dataclasses.replace(run.trials[number], measurement=measurement)
    trials = (*run.trials[:number], told, *run.trials[number + 1 :])
    excesses = dataclasses.replace(run, trials=trials).excesses(told)
    frozen = study.get_trials(deepcopy=False)[number]
    trial = optuna.trial.Trial(study, frozen._trial_id)
    for name, excess in excesses.items():
        if name not in frozen.constraints:  # a session that died here has written it
            trial.set_constraint(name, excess)


def is_among(trials: Sequence[FrozenTrial], levels: Mapping[str, int], label: str | None) -> bool:
    """Whether a trial has this label or, if it needs none, is of this plan."""
    if label is not None:
        return any(current_label(trial.user_attrs.get("label", "")) == label for trial in trials)
    return any(trial.params == levels for trial in trials)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PendingTrial:
    """A trial that waits to be evaluated.

    Attributes:
        number: Trial number.
        levels: Knob name -> level index.
        fidelity: Training to put behind it.
        label: What tables call it.
        attempts: How often it was started, this time included.
    """

    number: int
    levels: Mapping[str, int]
    fidelity: Fidelity
    label: str
    attempts: int


def pending_trial(trial: FrozenTrial) -> PendingTrial:
    """The job of a running trial, as often as it has been started so far."""
    return PendingTrial(
        number=trial.number,
        levels={name: int(level) for name, level in trial.params.items()},
        fidelity=trial.user_attrs["fidelity"],
        label=current_label(trial.user_attrs["label"]),
        attempts=trial.user_attrs.get("attempts", 1),
    )
