import dataclasses
import itertools
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial

from autocompress.errors import InputError
from autocompress.objective import Limits
from autocompress.samplers.guided.acquisition_search import AcquisitionSearch, Goal
from autocompress.samplers.guided.guided_sampler import Guidance, GuidedSampler
from autocompress.samplers.guided.probed_plan import ProbedPlan
from autocompress.samplers.propose import (
    SAMPLERS,
    check_sampler,
    derive_seed,
    distributions_of,
    propose_levels,
)
from autocompress.space.search_space import Knob, SearchSpace
from tests.builders import make_measurement

DIRECTIONS = ("maximize", "minimize")
ALONE = Guidance(predictor=None, costs=("size_bytes",), limits=Limits())


def finished(space: SearchSpace, n_trials: int) -> list[FrozenTrial]:
    names = [knob.name for knob in space.knobs]
    sizes = [len(knob.levels) for knob in space.knobs]
    return [
        measured(
            space,
            {name: (i * (j + 1)) % sizes[j] for j, name in enumerate(names)},
            0.9 - i / 100,
            1000 - i,
        )
        for i in range(n_trials)
    ]


def measured(
    space: SearchSpace, levels: dict[str, int], accuracy: float, size_bytes: int
) -> FrozenTrial:
    measurement = make_measurement(
        accuracy=accuracy,
        size_bytes=size_bytes,
        divergence=1.0 - accuracy,
        untuned_divergence=2.0 * (1.0 - accuracy),
    )
    return optuna.trial.create_trial(
        params=levels,
        distributions=distributions_of(space),
        values=[accuracy, float(size_bytes)],
        user_attrs={"measurement": measurement.to_json()},
    )


def propose(space: SearchSpace, sampler: str, trials: list[FrozenTrial], **changes: Any) -> object:
    settings = {"run_seed": 0, "number": len(trials), "guidance": ALONE, **changes}
    return propose_levels(space, sampler, DIRECTIONS, trials, **settings)


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_propose_levels_depends_on_history_and_seed_alone(sampler: str, space: SearchSpace) -> None:
    trials = finished(space, 12)
    first = propose(space, sampler, trials)

    assert propose(space, sampler, trials) == first
    assert space.decode(first)  # type: ignore[arg-type]
    if sampler not in ("gp", "guided"):  # they are sure of their optimum after 12 trials
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
        levels = propose(space, sampler, trials, run_seed=3)
        assert levels is not None
        assert levels not in [trial.params for trial in trials]
        trials.append(measured(space, levels, 0.9, 10 - number))

    assert propose(space, sampler, trials) is None


def test_guided_starts_with_the_baseline(space: SearchSpace) -> None:
    assert set(propose(space, "guided", []).values()) == {0}  # type: ignore[attr-defined]


def test_guided_minds_what_is_running(space: SearchSpace) -> None:
    trials = finished(space, 8)
    first = propose(space, "guided", trials)
    running = optuna.trial.create_trial(
        state=optuna.trial.TrialState.RUNNING,
        params=first,  # type: ignore[arg-type]
        distributions=distributions_of(space),
    )

    assert propose(space, "guided", trials, running=[running]) != first


def test_guided_looks_at_several_plans(space: SearchSpace) -> None:
    asked: list[int] = []

    def probe_plans(plans: Any) -> list[ProbedPlan]:
        asked.append(len(plans))
        nothing = ProbedPlan(levels={}, divergence=None, size_bytes=None, has_chance=False)
        return [dataclasses.replace(nothing, levels=plan) for plan in plans]

    guidance = Guidance(
        predictor=None, costs=("size_bytes",), limits=Limits(), probe_plans=probe_plans
    )

    assert propose(space, "guided", finished(space, 8), guidance=guidance) is not None
    assert asked == [4]


@pytest.mark.parametrize(
    ("costs", "limits", "reference"),
    [
        (("size_bytes",), Limits(), [1.0]),
        (("size_bytes", "latency_ms"), Limits(), [2.0, 2.0]),
        (("size_bytes", "latency_ms"), Limits(max_size_bytes=500), [0.5, 2.0]),
        (("size_bytes", "latency_ms"), Limits(max_latency_ms=3.0), [2.0, 2.0]),
        (("size_bytes",), Limits(max_latency_ms=3.0), [1.0, 3.0]),
    ],
)
def test_guided_counts_as_the_hypervolume_does_and_within_the_limits(
    space: SearchSpace,
    monkeypatch: pytest.MonkeyPatch,
    costs: tuple[str, ...],
    limits: Limits,
    reference: list[float],
) -> None:
    """Up to twice a cost where there are two axes; a cost that is only limited, to its limit."""
    goals: list[Goal] = []

    class ToldGuide(AcquisitionSearch):
        def __init__(self, *arguments: Any, **changes: Any) -> None:
            goals.append(arguments[3])
            super().__init__(*arguments, **changes)

    monkeypatch.setattr("autocompress.samplers.guided.guided_sampler.AcquisitionSearch", ToldGuide)
    baseline = measured(space, {knob.name: 0 for knob in space.knobs}, 0.8, 1000)
    baseline.user_attrs["measurement"]["latency_ms"] = 1.0
    guidance = Guidance(predictor=None, costs=costs, limits=limits)
    propose(space, "guided", [baseline], guidance=guidance)

    assert np.exp(goals[0].reference) == pytest.approx(reference)
    assert goals[0].floor == pytest.approx(0.76)


def test_guided_works_in_a_study_of_its_own(space: SearchSpace) -> None:
    """Behind Optuna's own interface, with trials that carry their measurements."""
    sampler = GuidedSampler(space, ALONE, seed=0, is_new=lambda levels: True)
    study = optuna.create_study(directions=list(DIRECTIONS), sampler=sampler)
    study.add_trials(finished(space, 6))
    trial = study.ask(fixed_distributions=distributions_of(space))

    assert set(trial.params) == {knob.name for knob in space.knobs}


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
        measured(
            space, {knob.name: 2 + (i + j) % 2 for j, knob in enumerate(knobs)}, 0.9 - i / 1000, 99
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
