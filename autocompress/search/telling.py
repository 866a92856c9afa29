"""What a study is told about a trial, made ready for it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

import optuna
from optuna.trial import FrozenTrial, TrialState

from autocompress.measurement import Measurement
from autocompress.run_record import RunRecord
from autocompress.search.guided.look import Look
from autocompress.search.sampler import distributions_of
from autocompress.space.search_space import SearchSpace

_MILLISECONDS: Final = ("latency_ms", "latency_spread_ms", "latency_low_ms", "latency_high_ms")


def running_trial(
    space: SearchSpace,
    levels: Mapping[str, int],
    looks: Sequence[Look],
    facts: Mapping[str, Any],
) -> FrozenTrial:
    """A trial that is being evaluated for the first time.

    Args:
        space: The knobs.
        levels: Knob name -> level index.
        looks: What was looked at to choose it.
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
            **({"looks": [dataclasses.asdict(look) for look in looks]} if looks else {}),
        },
    )


def on_one_scale(measurement: Measurement, baseline: FrozenTrial) -> Measurement:
    """A measurement in milliseconds of the study's baseline: another machine may have taken it.

    Args:
        measurement: With the latency of the untouched model where it was taken.
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
        return any(trial.user_attrs.get("label") == label for trial in trials)
    return any(trial.params == levels for trial in trials)
