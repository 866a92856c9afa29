"""The proposal itself: which plan to tune next. Numbers in, numbers out; knows no Optuna.

Candidates come from perturbed sweeps of the option table and from the front; a prior from the table
plus what finished trials taught predicts them; the one with the largest expected hypervolume
improvement is tuned next. Prior-guided Bayesian optimisation (Souza et al. 2021), with the
candidates of an evolutionary search instead of a gradient, since levels are ordinal.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from autocompress.pareto import non_dominated
from autocompress.search.guided.acquisition import expected_improvement, improvement_rates
from autocompress.search.guided.beliefs import NODE_WEIGHTS, Beliefs, History
from autocompress.search.guided.candidates import draw_candidates, mutated
from autocompress.space.prediction import Array, Levels, Predictor
from autocompress.space.search_space import SearchSpace

_CLIMBS = 3
_CLIMBERS = 24
_OFFSPRING = 192
_EXPLORED = 0.1  # share of proposals that follow a doubt instead of the best estimate
_NEAREST_MISSES = 8  # plans that are changed where none is small and fast enough
_APART = 2  # knobs in which shortlisted plans differ at least


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What counts as progress.

    Attributes:
        baseline_accuracy: Accuracy of the untouched model.
        floor: Accuracy below which a plan is of no use.
        is_latency: For each cost, whether it is the latency (else the size).
        is_axis: For each cost, whether it is an objective; others only have a limit.
        reference: Log of each cost over the untouched model's beyond which a plan is of no use.
    """

    baseline_accuracy: float
    floor: float
    is_latency: tuple[bool, ...]
    is_axis: tuple[bool, ...]
    reference: tuple[float, ...]


class Guide:
    """Proposes plans for one search.

    Args:
        space: The knobs.
        live: Levels to choose from, per knob.
        predictor: What the option table says, or None.
        goal: What counts as progress.
        is_learning: Whether trials correct the table.
    """

    def __init__(
        self,
        space: SearchSpace,
        live: Sequence[Sequence[int]],
        predictor: Predictor | None,
        goal: Goal,
        *,
        is_learning: bool = True,
    ) -> None:
        self._space = space
        self._live = live
        self._predictor = predictor
        self._goal = goal
        self._is_learning = is_learning

    def propose(
        self,
        history: History,
        running: Levels,
        is_new: Callable[[Array], bool],
        random: np.random.Generator,
        *,
        n_shortlisted: int = 1,
        screen: Callable[[Levels], Array] | None = None,
    ) -> Array | None:
        """Choose one plan.

        Args:
            history: Tuned trials without the baseline.
            running: Plans that are being tuned: taken as if they had come out as predicted; (R, K).
            is_new: Whether a plan, (K,), has not been tried.
            random: Source of chance.
            n_shortlisted: How many of the best are looked at by `screen`.
            screen: Training-free scores of plans, NaN for those that cannot be built or have no
                chance; None to trust the prediction.

        Returns:
            (K,) level indices, or None if nothing new was found.
        """
        beliefs = Beliefs(
            self._space,
            self._predictor,
            history,
            baseline_accuracy=self._goal.baseline_accuracy,
            is_latency=self._goal.is_latency,
            is_learning=self._is_learning,
        )
        judge = _Judge(beliefs, self._goal, history, running)
        plans = draw_candidates(
            self._live,
            judge.parents,
            self._predictor,
            random,
            power=beliefs.power,
            has_latency=any(self._goal.is_latency),
            is_far=judge.is_far,
        )
        worth = judge.worth(plans)
        for _ in range(_CLIMBS):
            best = plans[np.argsort(-worth, kind="stable")[:_CLIMBERS]]
            more = np.unique(mutated(self._live, best, _OFFSPRING, random), axis=0)
            plans = np.concatenate([plans, more])
            worth = np.concatenate([worth, judge.worth(more)])
        if random.random() < _EXPLORED:
            worth = worth * np.exp(random.standard_normal(len(worth)))
        order = random.permutation(len(plans))  # where nothing promises anything, chance decides
        plans, worth = plans[order], worth[order]
        n_wanted = n_shortlisted if screen is not None else 1
        # one more than is looked at: for when none of those is worth tuning
        shortlist = _shortlist(plans, worth, is_new, n_wanted + 1)
        if len(shortlist) == 0:
            return None
        looked = shortlist[:n_wanted]
        if screen is None or len(looked) == 1:
            return np.asarray(looked[0])
        untuned = screen(looked)
        works = np.isfinite(untuned)
        if not works.any():
            return np.asarray(shortlist[-1]) if len(shortlist) > n_wanted else None
        return np.asarray(looked[works][judge.worth(looked[works], untuned[works]).argmax()])


class _Judge:
    """Expected hypervolume improvement over what is measured and what runs."""

    def __init__(self, beliefs: Beliefs, goal: Goal, history: History, running: Levels) -> None:
        self._beliefs = beliefs
        self._goal = goal
        accuracy, costs, levels = history.accuracy, history.costs, history.levels
        if len(running):
            accuracy = np.append(accuracy, beliefs.accuracy(running) @ NODE_WEIGHTS)
            costs = np.concatenate([costs, beliefs.costs(running)])
            levels = np.concatenate([levels, running])
        # With several costs the baseline covers what lies between it and the reference.
        untouched = np.zeros((1, levels.shape[1]), dtype=np.int64)
        accuracy = np.append(goal.baseline_accuracy, accuracy)
        costs = np.concatenate([np.zeros((1, costs.shape[1])), costs])
        counts = (costs < np.array(goal.reference)).all(axis=1) & (accuracy > goal.floor)
        self._axes = np.flatnonzero(goal.is_axis)
        points = np.concatenate([-accuracy[:, None], costs[:, self._axes]], axis=1)
        kept = np.flatnonzero(counts)
        kept = kept[non_dominated(points[kept])]
        self._accuracy, self._costs = accuracy[kept], costs[kept][:, self._axes]
        excess = self._excess(costs)
        self.is_far = bool((excess > 0.0).all())
        """Whether nothing measured so far is small and fast enough."""
        if self.is_far:
            kept = np.argsort(excess, kind="stable")[:_NEAREST_MISSES]
        self.parents: Levels = np.concatenate([untouched, levels[kept[kept > 0] - 1]])

    def worth(self, plans: Levels, untuned: Array | None = None) -> Array:
        """Expected improvement of each plan; (M, K) -> (M,).

        Plans beyond a limit come after all others, the farther the later: they count as minus what
        they exceed it by.
        """
        reference = np.array(self._goal.reference)
        costs = self._beliefs.costs(plans)
        steps, rates = improvement_rates(
            costs[:, self._axes], self._costs, self._accuracy, reference[self._axes]
        )
        accuracy = self._beliefs.accuracy(plans, untuned)
        worth = expected_improvement(accuracy, NODE_WEIGHTS, steps, rates, self._goal.floor)
        excess = self._excess(costs)
        return np.where(excess > 0.0, -excess, worth)

    def _excess(self, costs: Array) -> Array:
        """How far costs lie beyond what is of use, added up; (M, C) -> (M,)."""
        return np.maximum(costs - np.array(self._goal.reference), 0.0).sum(axis=1)


def _shortlist(
    plans: Levels, worth: Array, is_new: Callable[[Array], bool], n_wanted: int
) -> Levels:
    """The best new plans, each some knobs away from those before it; (n, K)."""
    chosen: list[Array] = []
    for i in np.argsort(-worth, kind="stable"):
        plan = plans[i]
        is_apart = all(np.count_nonzero(plan != other) >= _APART for other in chosen)
        if is_apart and is_new(plan):
            chosen.append(plan)
            if len(chosen) == n_wanted:
                break
    return np.array(chosen, dtype=np.int64).reshape(len(chosen), plans.shape[1])
