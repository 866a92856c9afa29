import itertools

import optuna
import pytest
from optuna.trial import FrozenTrial

from autocompress.errors import InputError
from autocompress.search.sampler import (
    SAMPLERS,
    check_sampler,
    derive_seed,
    distributions_of,
    propose_levels,
)
from autocompress.space.search_space import Knob, SearchSpace

DIRECTIONS = ("maximize", "minimize")


def finished(space: SearchSpace, n_trials: int) -> list[FrozenTrial]:
    names = [knob.name for knob in space.knobs]
    sizes = [len(knob.levels) for knob in space.knobs]
    return [
        optuna.trial.create_trial(
            params={name: (i * (j + 1)) % sizes[j] for j, name in enumerate(names)},
            distributions=distributions_of(space),
            values=[0.9 - i / 100, 1000.0 - i],
        )
        for i in range(n_trials)
    ]


def propose(space: SearchSpace, sampler: str, trials: list[FrozenTrial], **changes: int) -> object:
    settings = {"run_seed": 0, "number": len(trials), **changes}
    return propose_levels(space, sampler, DIRECTIONS, trials, **settings)


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_propose_levels_depends_on_history_and_seed_alone(sampler: str, space: SearchSpace) -> None:
    trials = finished(space, 12)
    first = propose(space, sampler, trials)

    assert propose(space, sampler, trials) == first
    assert space.decode(first)  # type: ignore[arg-type]
    if sampler != "gp":  # which is sure of its optimum after 12 trials
        others = [propose(space, sampler, trials, run_seed=seed) for seed in range(1, 6)]
        assert any(other != first for other in others)


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_propose_levels_never_repeats_a_measured_plan(sampler: str) -> None:
    knobs = tuple(
        Knob(kind="weight_bits", targets=(n,), levels=(32, 8), label=n) for n in ("a", "b")
    )
    space = SearchSpace(knobs=knobs)
    trials: list[FrozenTrial] = []
    for number in range(4):
        levels = propose_levels(space, sampler, DIRECTIONS, trials, run_seed=3, number=number)
        assert levels is not None
        assert levels not in [trial.params for trial in trials]
        trials.append(
            optuna.trial.create_trial(
                params=levels, distributions=distributions_of(space), values=[0.9, 10.0 - number]
            )
        )

    assert propose(space, sampler, trials) is None


def test_check_sampler_names_the_closest_when_unknown() -> None:
    with pytest.raises(InputError, match="Unknown sampler 'tep'") as caught:
        check_sampler("tep")

    assert "Did you mean 'tpe'?" in caught.value.hint


def test_derive_seed_differs_by_purpose_and_is_stable() -> None:
    seeds = {derive_seed(s, what, n) for s in (0, 1) for what in ("a", "b") for n in range(5)}

    assert len(seeds) == 20
    assert derive_seed(0, "trial", 0) == derive_seed(0, "trial", 0)
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_nsga2_breeds_from_what_was_measured() -> None:
    knobs = tuple(
        Knob(kind="weight_bits", targets=(f"l{i}",), levels=(32, 8, 6, 4, 3, 2), label=f"l{i}")
        for i in range(12)
    )
    space = SearchSpace(knobs=knobs)
    parents = [
        optuna.trial.create_trial(
            params={knob.name: 2 + (i + j) % 2 for j, knob in enumerate(knobs)},
            distributions=distributions_of(space),
            values=[0.9 - i / 1000, 1000.0 - i],
        )
        for i in range(16)
    ]
    share = sum(
        level in (2, 3)
        for seed in range(8)
        for level in propose(space, "nsga2", parents, run_seed=seed).values()  # type: ignore[attr-defined]
    ) / (8 * 12)

    assert share > 0.8  # a random plan takes a third of its levels from the parents'


def test_propose_levels_finds_the_last_plan_of_a_space(space: SearchSpace) -> None:
    names = [knob.name for knob in space.knobs]
    plans = list(itertools.product(*(range(len(knob.levels)) for knob in space.knobs)))
    left = plans.pop(777)
    tried = [dict(zip(names, plan, strict=True)) for plan in plans]
    found = propose_levels(
        space, "random", DIRECTIONS, finished(space, 3), run_seed=0, number=9, failed=tried
    )

    assert found == dict(zip(names, left, strict=True))


def test_distinct_knobs_need_distinct_names() -> None:
    knob = Knob(kind="weight_bits", targets=("a",), levels=(32, 8), label="a")
    with pytest.raises(InputError, match="'weight_bits:a' stands twice"):
        SearchSpace(knobs=(knob, knob))
