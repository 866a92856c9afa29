"""Optuna's samplers by name, asked without state: each proposal sees a copy of the trials."""

import warnings
from collections.abc import Callable, Iterator, Sequence

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from autocompress.objective import Direction

_POPULATION = 16  # Optuna's default of 50 would be one random generation in a budget of 50


def _tpe(seed: int) -> BaseSampler:
    # Baseline and controls are what it starts from: no random trials on top of them.
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=0, constant_liar=False)


def _nsga2(seed: int) -> BaseSampler:
    return optuna.samplers.NSGAIISampler(seed=seed, population_size=_POPULATION)


def _gp(seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.GPSampler(seed=seed)


def _random(seed: int) -> BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


OPTUNA_SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "gp": _gp,
    "nsga2": _nsga2,
    "random": _random,
    "tpe": _tpe,
}


def asked(
    distributions: dict[str, BaseDistribution],
    directions: Sequence[Direction],
    finished: Sequence[FrozenTrial],
    draws: Sequence[tuple[str, int]],
) -> Iterator[dict[str, int]]:
    """Proposals one after the other, each by a fresh sampler.

    Args:
        distributions: One integer per knob.
        directions: `maximize` or `minimize` per objective.
        finished: Complete trials to learn from, in order of their numbers; copied.
        draws: Name in `OPTUNA_SAMPLERS` and seed, per proposal.
    """
    memory = optuna.create_study(directions=list(directions))
    memory.add_trials([_in_generation(trial, i) for i, trial in enumerate(finished)])
    for name, seed in draws:
        memory.sampler = OPTUNA_SAMPLERS[name](seed)
        trial = memory.ask(fixed_distributions=distributions)
        yield {name: int(level) for name, level in trial.params.items()}
        memory.tell(trial, state=optuna.trial.TrialState.FAIL)


def _in_generation(trial: FrozenTrial, index: int) -> FrozenTrial:
    """A copy that belongs to a generation: NSGA-II selects parents from complete generations."""
    generation = {optuna.samplers.NSGAIISampler._get_generation_key(): index // _POPULATION}
    return optuna.trial.create_trial(
        state=trial.state,
        params=trial.params,
        distributions=trial.distributions,
        values=trial.values,
        constraints=trial.constraints,
        system_attrs=generation,
    )
