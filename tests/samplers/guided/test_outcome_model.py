"""OutcomeModel start from the table and end with the trials."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import spearmanr

from autocompress.samplers.guided.outcome_model import NODE_WEIGHTS, History, OutcomeModel, Probes


def history_of(world, plans: np.ndarray) -> History:
    measured = [world.measure(plan) for plan in plans]
    base = world.table.baseline.size_bytes
    return History(
        levels=np.asarray(plans),
        accuracy=np.array([m.accuracy for m in measured]),
        divergence=np.array([m.divergence for m in measured]),
        untuned=np.array([m.untuned_divergence for m in measured]),
        costs=np.log([m.size_bytes / base for m in measured]).reshape(-1, 1),
    )


def random_plans(world, n: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    columns = [random.integers(len(knob.levels), size=n) for knob in world.space.knobs]
    return np.stack(columns, axis=1)


def _outcomes(world, plans, **changes) -> OutcomeModel:
    settings = {"predictor": world.predictor, "is_learning": True, **changes}
    outcomes = OutcomeModel(
        world.space,
        settings["predictor"],
        settings.get("history") or history_of(world, plans),
        baseline_accuracy=0.95,
        costs=("size_bytes",),
        is_learning=settings["is_learning"],
    )
    if "probes" in settings:
        outcomes.learn(settings["probes"])
    return outcomes


def probes_of(world, plans: np.ndarray, untuned: np.ndarray) -> Probes:
    base = world.table.baseline.size_bytes
    sizes = [world.measure(plan).size_bytes / base for plan in plans]
    return Probes(levels=plans, untuned=untuned, costs=np.log(sizes)[:, None])


def test_node_weights_are_probabilities():
    assert NODE_WEIGHTS.sum() == pytest.approx(1.0)
    assert (NODE_WEIGHTS > 0).all()


def test_without_trials_the_table_ranks_plans(world):
    asked = random_plans(world, 40, seed=1)
    outcomes = _outcomes(world, np.empty((0, 12), dtype=np.int64))
    truth = [world.measure(plan).divergence for plan in asked]
    assert spearmanr(outcomes.divergence(asked), truth).statistic > 0.6


def test_trials_correct_the_table(world):
    asked = random_plans(world, 100, seed=1)
    truth = np.log([world.measure(plan).divergence for plan in asked])

    def error(**changes) -> float:
        outcomes = _outcomes(world, random_plans(world, 60, seed=2), **changes)
        return float(np.abs(np.log(outcomes.divergence(asked)) - truth).mean())

    assert error() < 0.7 * error(is_learning=False)
    assert error() < error(predictor=None)


def test_looks_correct_the_table_where_few_trials_were_tuned(world):
    """Before tuning plans harm twice what they harm after it, with errors of the table's own."""

    def harm(plans: np.ndarray) -> np.ndarray:
        return np.array([world.measure(plan).divergence for plan in plans])

    asked = random_plans(world, 100, seed=1)
    probed, tuned = random_plans(world, 60, seed=2), random_plans(world, 10, seed=3)
    history = dataclasses.replace(history_of(world, tuned), untuned=2.0 * harm(tuned))
    probes = probes_of(world, probed, 2.0 * harm(probed))

    def error(**known: Probes) -> float:
        outcomes = _outcomes(world, tuned, history=history, **known)
        return float(np.abs(np.log(outcomes.divergence(asked) / harm(asked))).mean())

    assert error(probes=probes) < 0.8 * error()


@pytest.mark.parametrize("n_probes", [5, 50, 120])
def test_looks_that_repeat_the_table_make_nothing_more_certain(world, n_probes):
    """A probe says here what the table says: how wrong both are, only trials can tell."""
    asked, probed = random_plans(world, 100, seed=99), random_plans(world, n_probes, seed=50)
    truth = np.log([world.measure(plan).divergence for plan in asked])
    inside = []
    for seed in range(4):
        tuned = random_plans(world, 12, seed=seed)
        outcomes = _outcomes(
            world, tuned, probes=probes_of(world, probed, world.predictor.divergence(probed))
        )
        mean, deviation = outcomes._log_divergences(asked)
        inside.append((np.abs(mean - truth) < 2.0 * deviation).mean())
    assert np.mean(inside) > 0.75


def test_sizes_that_looks_found_correct_the_table(world):
    """Files are half as large as the table says where the first layer has 2 bits, and so on."""
    asked, probed = random_plans(world, 60, seed=1), random_plans(world, 40, seed=2)
    tuned = random_plans(world, 3, seed=3)

    def log_size(plans: np.ndarray) -> np.ndarray:
        base = world.table.baseline.size_bytes
        return np.log(world.predictor.size_bytes(plans) / base) - 0.7 * plans[:, 0] / 4

    probes = dataclasses.replace(
        probes_of(world, probed, np.ones(40)), costs=log_size(probed)[:, None]
    )

    def error(**known: Probes) -> float:
        found = _outcomes(world, tuned, **known).costs(asked)[:, 0]
        return float(np.abs(found - log_size(asked)).mean())

    assert error(probes=probes) < 0.6 * error()


def test_times_that_looks_found_correct_the_table_where_they_were_taken(world):
    """The table says that no plan is faster than another; half of the probes were timed."""
    asked, probed = random_plans(world, 60, seed=1), random_plans(world, 60, seed=2)
    tuned = random_plans(world, 3, seed=3)
    history = dataclasses.replace(history_of(world, tuned), costs=np.zeros((3, 1)))

    def log_latency(plans: np.ndarray) -> np.ndarray:
        return -0.3 * plans[:, 8:].sum(axis=1) / 4

    found = np.where(np.arange(60) % 2, log_latency(probed), np.nan)
    probes = dataclasses.replace(probes_of(world, probed, np.ones(60)), costs=found[:, None])

    def error(known: Probes | None) -> float:
        outcomes = OutcomeModel(
            world.space, world.predictor, history, baseline_accuracy=0.95, costs=("latency_ms",)
        )
        if known is not None:
            outcomes.learn(known)
        return float(np.abs(outcomes.costs(asked)[:, 0] - log_latency(asked)).mean())

    assert error(probes) < 0.4 * error(None)


def test_of_what_cannot_be_built_nothing_is_learned(world):
    tuned, asked = random_plans(world, 10, seed=3), random_plans(world, 20, seed=1)
    none = np.full(20, np.nan)
    nothing = Probes(levels=asked, untuned=none, costs=none[:, None])
    np.testing.assert_array_equal(
        _outcomes(world, tuned, probes=nothing).divergence(asked),
        _outcomes(world, tuned).divergence(asked),
    )


def test_looks_at_plans_that_were_tuned_teach_nothing_new(world):
    tuned = random_plans(world, 10, seed=3)
    probes = probes_of(world, tuned, np.full(10, 7.0))
    asked = random_plans(world, 20, seed=1)
    np.testing.assert_array_equal(
        _outcomes(world, tuned, probes=probes).divergence(asked),
        _outcomes(world, tuned).divergence(asked),
    )


def test_costs_are_learned_without_a_table(world):
    asked = random_plans(world, 50, seed=3)
    outcomes = _outcomes(world, random_plans(world, 80, seed=4), predictor=None)
    truth = np.log([world.measure(p).size_bytes / world.table.baseline.size_bytes for p in asked])
    assert spearmanr(outcomes.costs(asked)[:, 0], truth).statistic > 0.8


def test_costs_follow_the_table_exactly_where_it_is_exact(world):
    asked = random_plans(world, 20, seed=5)
    outcomes = _outcomes(world, random_plans(world, 10, seed=6))
    truth = np.log([world.measure(p).size_bytes / world.table.baseline.size_bytes for p in asked])
    np.testing.assert_allclose(outcomes.costs(asked)[:, 0], truth, atol=1e-3)


def test_accuracies_lie_between_what_was_seen(world):
    plans = random_plans(world, 20, seed=7)
    accuracy = _outcomes(world, plans).accuracy(random_plans(world, 30, seed=8))
    seen = history_of(world, plans)
    usual = 0.95 * np.exp(-seen.divergence.max() * 10 / 14)  # what is believed of worse ones
    assert accuracy.shape == (30, len(NODE_WEIGHTS))
    assert accuracy.min() >= min(seen.accuracy.min(), usual)
    assert accuracy.max() <= 0.95 + 1e-9


def test_without_trials_a_large_divergence_is_not_believed_to_be_harmless(world):
    outcomes = _outcomes(world, np.empty((0, 12), dtype=np.int64))
    ruined = np.array([[len(knob.levels) - 1 for knob in world.space.knobs]])
    assert outcomes.divergence(ruined)[0] > 1.0
    assert (outcomes.accuracy(ruined) @ NODE_WEIGHTS)[0] < 0.8


def test_accuracies_of_trials_are_denoised(world):
    """A lucky trial counts as what its divergence promises."""
    past = history_of(world, random_plans(world, 20, seed=11))
    lucky = past.accuracy.copy()
    lucky[3] += 0.02
    outcomes = OutcomeModel(
        world.space, world.predictor, dataclasses.replace(past, accuracy=lucky),
        baseline_accuracy=0.95, costs=("size_bytes",),
    )  # fmt: skip
    assert outcomes.denoised(past)[3] < lucky[3] - 0.005


def test_trials_under_way_leave_less_doubt_about_their_like(world):
    plans = random_plans(world, 8, seed=12)
    outcomes = _outcomes(world, plans[:4])
    beside = OutcomeModel(
        world.space, world.predictor, outcomes.with_expected(plans[4:5]),
        baseline_accuracy=0.95, costs=("size_bytes",),
    )  # fmt: skip

    def spread(model: OutcomeModel) -> float:
        return float(np.ptp(model.accuracy(plans[4:5])))

    assert spread(beside) < spread(outcomes)


def test_a_score_before_tuning_moves_the_prediction(world):
    outcomes = _outcomes(world, random_plans(world, 40, seed=9))
    plan = random_plans(world, 1, seed=10)
    good = outcomes.accuracy(plan, np.array([1e-3])) @ NODE_WEIGHTS
    bad = outcomes.accuracy(plan, np.array([3.0])) @ NODE_WEIGHTS
    assert good[0] > bad[0]
