"""Expected improvement against brute force: hypervolumes with and without the candidate."""

import numpy as np
import pytest

from autocompress.pareto import hypervolume
from autocompress.samplers.guided.expected_improvement import (
    expected_improvement,
    improvement_rates,
)

FLOOR = 0.5


def _improvement(cost, accuracy, front_costs, front_accuracy, reference) -> float:
    """Volume that one point adds, from two full hypervolumes; accuracies as losses up to FLOOR."""

    def points(costs, accuracies):
        return np.column_stack([costs, -np.asarray(accuracies)])

    corner = np.append(reference, -FLOOR)
    before = points(front_costs, front_accuracy)
    after = np.vstack([before, points([cost], [accuracy])])
    return hypervolume(after, corner) - hypervolume(before, corner)


@pytest.mark.parametrize("n_costs", [1, 2, 3])
def test_improvement_is_what_the_hypervolume_gains(n_costs):
    random = np.random.default_rng(n_costs)
    reference = np.zeros(n_costs)
    for _ in range(20):
        front_costs = random.uniform(-3.0, 0.2, size=(6, n_costs))
        front_accuracy = random.uniform(0.4, 1.0, size=6)
        costs = random.uniform(-3.5, 0.5, size=(8, n_costs))
        accuracy = random.uniform(0.3, 1.1, size=8)
        steps, rates = improvement_rates(costs, front_costs, front_accuracy, reference)
        gained = expected_improvement(accuracy[:, None], np.ones(1), steps, rates, FLOOR)
        expected = [
            _improvement(c, a, front_costs, front_accuracy, reference)
            for c, a in zip(costs, accuracy, strict=True)
        ]
        np.testing.assert_allclose(gained, expected, atol=1e-9)


def test_expectation_is_the_weighted_mean_of_improvements():
    steps, rates = improvement_rates(
        np.array([[-1.0]]), np.array([[-0.5]]), np.array([0.8]), np.zeros(1)
    )
    nodes, weights = np.array([[0.7, 0.9]]), np.array([0.25, 0.75])
    single = [
        expected_improvement(nodes[:, [i]], np.ones(1), steps, rates, FLOOR)[0] for i in (0, 1)
    ]
    both = expected_improvement(nodes, weights, steps, rates, FLOOR)[0]
    assert both == pytest.approx(0.25 * single[0] + 0.75 * single[1])


def test_improvement_without_a_front_is_the_whole_box():
    steps, rates = improvement_rates(np.array([[-2.0]]), np.empty((0, 1)), np.empty(0), np.zeros(1))
    gained = expected_improvement(np.array([[0.9]]), np.ones(1), steps, rates, FLOOR)
    assert gained[0] == pytest.approx(2.0 * (0.9 - FLOOR))


def test_candidates_beyond_the_reference_gain_nothing():
    front = (np.array([[-1.0, -1.0]]), np.array([0.9]))
    steps, rates = improvement_rates(np.array([[0.1, -2.0]]), *front, np.zeros(2))
    assert expected_improvement(np.array([[1.0]]), np.ones(1), steps, rates, FLOOR)[0] == 0.0
