"""Expected hypervolume improvement where costs are given and the accuracy is uncertain.

Doubt about a cost is averaged over by whoever calls this. With fixed costs the improvement is a
piecewise linear function of the accuracy, so its expectation needs no sampling (the box
decomposition of Emmerich et al. 2011 for one uncertain objective).

Dimension key: `N` candidates, `F` front points, `C` costs, `Q` quadrature nodes.
"""

import numpy as np

from autocompress.pareto import hypervolume
from autocompress.space.sensitivity_table import Array


def improvement_rates(
    costs: Array, front_costs: Array, front_accuracy: Array, reference: Array
) -> tuple[Array, Array]:
    """How fast hypervolume grows with a candidate's accuracy, step by step.

    At accuracy t a candidate newly covers what of its cost box no front point of accuracy >= t
    covers. That changes only where t passes a front point.

    Args:
        costs: Candidates' costs, smaller is better; (N, C).
        front_costs: (F, C).
        front_accuracy: (F,).
        reference: Costs beyond which nothing counts; (C,).

    Returns:
        Accuracies at which the rate changes, ascending, (F,), and the rates below the first,
        between and above the last of them; (N, F + 1).
    """
    order = np.argsort(front_accuracy, kind="stable")
    steps = front_accuracy[order]
    rates = np.empty((len(costs), len(steps) + 1))
    for i in range(len(steps) + 1):
        rates[:, i] = _uncovered(costs, front_costs[order[i:]], reference)
    return steps, rates


def _uncovered(costs: Array, others: Array, reference: Array) -> Array:
    """Volume between each candidate and the reference that no other point covers; (N,)."""
    box = np.prod(np.maximum(reference - costs, 0.0), axis=1)
    if len(others) == 0:
        return box
    if costs.shape[1] == 1:
        best = np.minimum(others.min(), reference[0])
        return np.asarray(np.maximum(best - costs[:, 0], 0.0))
    if costs.shape[1] == 2:
        return np.asarray(box - _covered_area(costs, others, reference))
    covered = [hypervolume(np.maximum(others, cost), reference) for cost in costs]
    return np.asarray(box - np.array(covered))


def _covered_area(costs: Array, others: Array, reference: Array) -> Array:
    """Area of each candidate's box that others cover: a staircase, all candidates at once; (N,)."""
    others = others[np.argsort(others[:, 0], kind="stable")]
    x = np.minimum(np.maximum(others[None, :, 0], costs[:, :1]), reference[0])  # (N, F)
    y = np.minimum(np.maximum(others[None, :, 1], costs[:, 1:]), reference[1])
    lowest = np.minimum.accumulate(y, axis=1)
    ends = np.concatenate([x[:, 1:], np.full((len(costs), 1), reference[0])], axis=1)
    area = ((ends - x) * (reference[1] - lowest)).sum(axis=1)
    inside = (costs < reference).all(axis=1)
    return np.where(inside, area, 0.0)


def expected_improvement(
    accuracy: Array, weights: Array, steps: Array, rates: Array, floor: float
) -> Array:
    """Expected hypervolume improvement.

    Args:
        accuracy: Accuracies a candidate may come out with; (N, Q).
        weights: Their probabilities; (Q,).
        steps: From `improvement_rates`; (F,).
        rates: Likewise; (N, F + 1).
        floor: Accuracy below which nothing counts.

    Returns:
        (N,), in accuracy times the product of the costs' units.
    """
    edges = np.concatenate([[floor], np.maximum(steps, floor)])
    widths = np.append(np.diff(edges), np.inf)
    gained = np.clip(accuracy[:, :, None] - edges, 0.0, widths)  # (N, Q, F + 1)
    return np.asarray((gained * rates[:, None, :]).sum(axis=2) @ weights)
