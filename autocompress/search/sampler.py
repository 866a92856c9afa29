"""Proposals: Optuna's samplers by name, made stateless, so that resumed runs continue exactly."""

import hashlib
import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from autocompress.errors import unknown_name
from autocompress.objective import Direction
from autocompress.space.search_space import AMOUNT_OF, SearchSpace

_MAX_DRAWS = 64
_MAX_WALK = 20_000  # about a second; a space this large is not searched to the end
_IDLE_ALONE = {*AMOUNT_OF, "activation_bits"}
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


SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "gp": _gp,
    "nsga2": _nsga2,
    "random": _random,
    "tpe": _tpe,
}


def check_sampler(name: str) -> None:
    """Raise an InputError unless a sampler of that name exists."""
    if name not in SAMPLERS:
        raise unknown_name("sampler", name, SAMPLERS)


def derive_seed(run_seed: int, *parts: object) -> int:
    """A 32-bit seed from sha256 of the run's seed and what it is for."""
    text = ":".join(map(str, (run_seed, *parts)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def distributions_of(space: SearchSpace) -> dict[str, BaseDistribution]:
    """One unconditional integer per knob: level indices keep their order."""
    return {knob.name: IntDistribution(0, len(knob.levels) - 1) for knob in space.knobs}


def propose_levels(
    space: SearchSpace,
    sampler: str,
    directions: Sequence[Direction],
    finished: Sequence[FrozenTrial],
    *,
    run_seed: int,
    number: int,
    failed: Sequence[Mapping[str, int]] = (),
) -> dict[str, int] | None:
    """Propose one plan nobody has tried yet.

    A fresh sampler with a seed of its own looks at a copy of the finished trials in memory, so the
    proposal depends on nothing but (run seed, trial number, finished trials).

    Args:
        space: The knobs.
        sampler: Name in `SAMPLERS`.
        directions: `maximize` or `minimize` per objective.
        finished: Complete trials to learn from, in order of their numbers.
        run_seed: Seed of the run.
        number: Number of the trial to propose.
        failed: Levels of plans that failed: not proposed again.

    Returns:
        Knob name -> level index, or None if every plan has been tried.
    """
    distributions = distributions_of(space)
    tried = {_key(space, levels) for levels in (*(t.params for t in finished), *failed)}
    memory = optuna.create_study(directions=list(directions))
    memory.add_trials([_in_generation(trial, i) for i, trial in enumerate(finished)])
    for draw in range(_MAX_DRAWS):
        # The last draws are random: a sampler may insist on a plan it has seen.
        name = sampler if draw < _MAX_DRAWS // 2 else "random"
        memory.sampler = SAMPLERS[name](derive_seed(run_seed, "propose", number, draw))
        trial = memory.ask(fixed_distributions=distributions)
        levels = {name: int(level) for name, level in trial.params.items()}
        memory.tell(trial, state=optuna.trial.TrialState.FAIL)
        if _key(space, levels) not in tried:
            return levels
    return _first_untried(space, tried)


def _in_generation(trial: FrozenTrial, index: int) -> FrozenTrial:
    """A copy that belongs to a generation: NSGA-II selects parents from complete generations."""
    generation = {optuna.samplers.NSGAIISampler._get_generation_key(): index // _POPULATION}
    return optuna.trial.create_trial(
        state=trial.state,
        params=trial.params,
        distributions=trial.distributions,
        values=trial.values,
        system_attrs=generation,
    )


def _first_untried(space: SearchSpace, tried: Set[str]) -> dict[str, int] | None:
    """The first plan nobody has tried: chance rarely finds the last ones of a small space.

    Knobs that are idle by themselves (methods, 8-bit inputs) come first and so change slowest.
    """
    knobs = sorted(space.knobs, key=lambda knob: (knob.kind not in _IDLE_ALONE, knob.name))
    every = itertools.product(*(range(len(knob.levels)) for knob in knobs))
    for choice in itertools.islice(every, _MAX_WALK):
        levels = {knob.name: level for knob, level in zip(knobs, choice, strict=True)}
        if _key(space, levels) not in tried:
            return levels
    return None


def _key(space: SearchSpace, levels: Mapping[str, Any]) -> str:
    """Equal for plans that make the same candidate: idle knobs do not count."""
    return space.decode(levels).effective.digest
