"""Proposals: samplers by name, made stateless, so that resumed runs continue exactly."""

import functools
import hashlib
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any, Final

import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from autocompress.entry_points import Registry
from autocompress.objective import Direction
from autocompress.samplers.guided.guided_sampler import Guidance, GuidedSampler
from autocompress.space.search_space import SearchSpace
from autocompress.technique import TECHNIQUES

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
GUIDED: Final = "guided"
SAMPLER_REGISTRY: Final = Registry(
    kind="sampler",
    group="autocompress.samplers",
    built_in=OPTUNA_SAMPLERS,
    is_row=callable,
    reserved=(GUIDED,),
)


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
        draws: Name in `SAMPLER_REGISTRY` and seed, per proposal.
    """
    memory = optuna.create_study(directions=list(directions))
    memory.add_trials([_in_generation(trial, i) for i, trial in enumerate(finished)])
    for name, seed in draws:
        memory.sampler = SAMPLER_REGISTRY.find(name)(seed)
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


_MAX_DRAWS = 64
_MAX_WALK = 20_000  # about a second; a space this large is not searched to the end

SAMPLERS: Final = (GUIDED, *sorted(OPTUNA_SAMPLERS))


def check_sampler(name: str) -> None:
    """Raise an InputError unless a sampler of that name exists and can be imported."""
    SAMPLER_REGISTRY.check_name(name)
    if name != GUIDED:
        SAMPLER_REGISTRY.find(name)


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
    running: Sequence[FrozenTrial] = (),
    guidance: Guidance | None = None,
) -> dict[str, int] | None:
    """Propose one plan nobody has tried yet.

    A fresh sampler with a seed of its own sees a copy of the finished trials in memory, so the
    proposal depends on nothing but (run seed, trial number, finished trials) and the guidance.

    Args:
        space: The knobs.
        sampler: Name in `SAMPLER_REGISTRY`.
        directions: `maximize` or `minimize` per objective.
        finished: Complete trials to learn from, in order of their numbers.
        run_seed: Seed of the run.
        number: Number of the trial to propose.
        failed: Levels of plans that failed or were stopped: not proposed again.
        running: Trials that are being evaluated: not proposed again, and taken into account by the
            guided sampler.
        guidance: What the guided sampler needs; others take no notice of it.

    Returns:
        Knob name -> level index, or None if every plan has been tried.
    """
    seen = (*(t.params for t in (*finished, *running)), *failed)
    tried = {_key(space, levels) for levels in seen}

    def is_new(levels: Mapping[str, Any]) -> bool:
        return _key(space, levels) not in tried

    draws = [
        # The last draws are random: a sampler may insist on a plan it has seen.
        (
            sampler if draw < _MAX_DRAWS // 2 else "random",
            derive_seed(run_seed, "propose", number, draw),
        )
        for draw in range(_MAX_DRAWS)
    ]
    if sampler == GUIDED:
        assert guidance is not None
        guided = GuidedSampler(space, guidance, seed=draws[0][1], is_new=is_new)
        levels = guided.propose([*finished, *running])
        if levels is not None:
            return levels
        draws = draws[_MAX_DRAWS // 2 :]
    for levels in asked(distributions_of(space), directions, finished, draws):
        if is_new(levels):
            return levels
    return _first_untried(space, tried)


def _first_untried(space: SearchSpace, tried: Set[str]) -> dict[str, int] | None:
    """The first plan nobody has tried: chance rarely finds the last ones of a small space.

    Knobs that are idle by themselves (methods, 8-bit activations, prices) come first and so change
    slowest.
    """
    knobs = sorted(space.knobs, key=lambda knob: (TECHNIQUES[knob.kind].needs is None, knob.name))
    every = itertools.product(*(range(len(knob.levels)) for knob in knobs))
    for choice in itertools.islice(every, _MAX_WALK):
        levels = {knob.name: level for knob, level in zip(knobs, choice, strict=True)}
        if _key(space, levels) not in tried:
            return levels
    return None


def _key(space: SearchSpace, levels: Mapping[str, Any]) -> str:
    """Equal for plans that make the same candidate: idle knobs do not count."""
    return _digest(space, tuple(int(levels[knob.name]) for knob in space.knobs))


@functools.lru_cache(maxsize=65_536)
def _digest(space: SearchSpace, levels: tuple[int, ...]) -> str:
    named = {knob.name: level for knob, level in zip(space.knobs, levels, strict=True)}
    return space.decode(named).effective.digest
