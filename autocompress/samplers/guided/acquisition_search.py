"""The proposal itself: which plan to tune next. Numbers in, numbers out; knows no Optuna.

Candidates come from perturbed sweeps of the sensitivity table and from the front; a prior from the
table plus what finished trials taught predicts them; the one with the largest expected hypervolume
improvement is tuned next. Prior-guided Bayesian optimisation (Souza et al. 2021), with the
candidates of an evolutionary search instead of a gradient, since levels are ordinal.
"""

import dataclasses
from collections.abc import Callable, Sequence, Set

import numpy as np
from numpy.typing import NDArray

from autocompress.accuracy_scale import AccuracyScale
from autocompress.objective import LATENCY
from autocompress.pareto import non_dominated
from autocompress.samplers.guided.candidates import draw_candidates, mutated
from autocompress.samplers.guided.expected_improvement import (
    expected_improvement,
    improvement_rates,
)
from autocompress.samplers.guided.lagrangian_sweep import penalized_bits, with_measured_bits
from autocompress.samplers.guided.outcome_model import (
    NODE_WEIGHTS,
    History,
    OutcomeModel,
    Probes,
    no_probes,
)
from autocompress.space.prediction import Predictor
from autocompress.space.search_space import SearchSpace
from autocompress.space.sensitivity_table import Array, Levels

_CLIMBS = 3
_CLIMBERS = 24
_OFFSPRING = 192
_EXPLORED = 0.1  # share of proposals that follow a doubt instead of the best estimate
_NEAREST_MISSES = 8  # plans that are changed where none is small and fast enough
_APART = 2  # knobs in which shortlisted plans differ at least
# Gauss-Hermite quadrature of the doubt about costs: (deviations, probability)
_COST_NODES = ((-(3.0**0.5), 1 / 6), (0.0, 2 / 3), (3.0**0.5, 1 / 6))
_ENOUGH_LOOKS = 4  # at plans without a chance, in one proposal

ProbePlans = Callable[[Levels], tuple[Probes, NDArray[np.bool_]]]
"""Probes plans, (S, K), NaN for those that cannot be built; and which have a chance, (S,)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What counts as progress.

    Attributes:
        scale: How much losses of accuracy count.
        floor: Accuracy below which a plan is of no use.
        costs: Fields of `Measurement` that are minimised.
        is_axis: For each cost, whether it is an objective; others only have a limit.
        reference: Log of each cost over the original model's beyond which a plan is of no use.
    """

    scale: AccuracyScale
    floor: float
    costs: tuple[str, ...]
    is_axis: tuple[bool, ...]
    reference: tuple[float, ...]


class AcquisitionSearch:
    """Proposes plans for one search.

    Args:
        space: The knobs.
        live: Levels to choose from, per knob.
        predictor: What the sensitivity table says, or None.
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
        probes: Probes | None = None,
        n_shortlisted: int = 1,
        probe_plans: ProbePlans | None = None,
    ) -> Array | None:
        """Choose one plan.

        Args:
            history: Tuned trials without the baseline.
            running: Plans that are being tuned: taken as if they had come out as predicted; (R, K).
            is_new: Whether a plan, (K,), has not been tried.
            random: Source of chance.
            probes: Plans that were probed before.
            n_shortlisted: How many of the best are probed at once. If none of them has a
                chance, others are chosen by what was learned, until at least 4 were seen.
            probe_plans: Probes plans without training; None to trust the prediction.

        Returns:
            (K,) level indices, or None if nothing new was found. If nothing that was probed has
            a chance, one of those; if none of it can be built, the next best.
        """
        outcomes = self._outcomes(history)
        if len(running) and self._is_learning:
            outcomes = self._outcomes(outcomes.with_expected(running))
        known = probes or no_probes(self._space, len(self._goal.costs))
        rejected: set[bytes] = set()
        hopeless: Array | None = None
        while True:
            outcomes.learn(known)
            judge = _Judge(outcomes, self._goal, history, running)
            plans = self._shortlist(judge, is_new, rejected, random, n_shortlisted)
            if len(plans) == 0:
                return hopeless
            if probe_plans is None or len(rejected) >= _ENOUGH_LOOKS:
                return np.asarray(plans[0])
            found, has_chance = probe_plans(plans)
            if has_chance.any():
                worth = judge.worth(
                    plans[has_chance], found.untuned[has_chance], found.costs[has_chance]
                )
                return np.asarray(plans[has_chance][worth.argmax()])
            rejected |= {plan.tobytes() for plan in plans}
            works = np.isfinite(found.untuned)
            if works.any():
                hopeless = plans[works][0]
            if hopeless is not None and len(rejected) >= _ENOUGH_LOOKS:
                return hopeless
            known = known.joined(found)

    def _outcomes(self, history: History) -> OutcomeModel:
        return OutcomeModel(
            self._space,
            self._predictor,
            history,
            baseline_accuracy=self._goal.scale.baseline,
            costs=self._goal.costs,
            is_learning=self._is_learning,
        )

    def _shortlist(
        self,
        judge: "_Judge",
        is_new: Callable[[Array], bool],
        rejected: Set[bytes],
        random: np.random.Generator,
        n_wanted: int,
    ) -> Levels:
        """Draw plans, improve the best ones and choose among them; (at most n_wanted, K)."""
        bits_of = penalized_bits(self._space)
        plans = draw_candidates(
            self._live,
            judge.parents,
            self._predictor,
            random,
            power=judge.power,
            has_latency=LATENCY.field in self._goal.costs,
            is_far=judge.is_far,
            bits_of=bits_of,
        )
        plans = with_measured_bits(bits_of, plans)
        worth = judge.worth(plans)
        for _ in range(_CLIMBS):
            best = plans[np.argsort(-worth, kind="stable")[:_CLIMBERS]]
            more = mutated(self._live, best, _OFFSPRING, random, bits_of)
            more = with_measured_bits(bits_of, more)
            known = {plan.tobytes() for plan in plans}
            more = more[[plan.tobytes() not in known for plan in more]]
            plans = np.concatenate([plans, more])
            worth = np.concatenate([worth, judge.worth(more)])
        if random.random() < _EXPLORED:
            worth = worth * np.exp(random.standard_normal(len(worth)))
        order = random.permutation(len(plans))  # where nothing promises anything, chance decides
        return _apart(
            plans[order],
            worth[order],
            lambda plan: plan.tobytes() not in rejected and is_new(plan),
            n_wanted,
        )


class _Judge:
    """Expected hypervolume improvement over what is measured and what runs."""

    def __init__(
        self, outcomes: OutcomeModel, goal: Goal, history: History, running: Levels
    ) -> None:
        self._outcomes = outcomes
        self._goal = goal
        self.power = outcomes.power
        # what a divergence promises, not what was measured: accuracies jump by whole examples,
        # and a lucky one would keep better plans away
        accuracy, costs, levels = outcomes.denoised(history), history.costs, history.levels
        if len(running):
            accuracy = np.append(accuracy, outcomes.accuracy(running) @ NODE_WEIGHTS)
            costs = np.concatenate([costs, outcomes.costs(running)])
            levels = np.concatenate([levels, running])
        # With several costs the baseline covers what lies between it and the reference.
        untouched = np.zeros((1, levels.shape[1]), dtype=np.int64)
        accuracy = np.append(goal.scale.baseline, accuracy)
        costs = np.concatenate([np.zeros((1, costs.shape[1])), costs])
        counts = (costs < np.array(goal.reference)).all(axis=1) & (accuracy > goal.floor)
        self._axes = np.flatnonzero(goal.is_axis)
        points = np.concatenate([-accuracy[:, None], costs[:, self._axes]], axis=1)
        kept = np.flatnonzero(counts)
        kept = kept[non_dominated(points[kept])]
        self._worth, self._costs = goal.scale.worth(accuracy[kept]), costs[kept][:, self._axes]
        excess = self._excess(costs)
        self.is_far = bool((excess > 0.0).all())
        """Whether nothing measured so far is small and fast enough."""
        if self.is_far:
            kept = np.argsort(excess, kind="stable")[:_NEAREST_MISSES]
        self.parents: Levels = np.concatenate([untouched, levels[kept[kept > 0] - 1]])

    def worth(
        self, plans: Levels, untuned: Array | None = None, measured: Array | None = None
    ) -> Array:
        """Expected improvement of each plan; (M, K) -> (M,).

        Plans beyond a limit come after all others, the farther the later: they count as minus what
        they exceed it by.

        Args:
            plans: (M, K) level indices.
            untuned: Their training-free scores, if they were taken; (M,), nats.
            measured: Log of their costs as a probe measured them, (M, C), NaN where it did not.
        """
        scale = self._goal.scale
        gained = scale.worth(self._outcomes.accuracy(plans, untuned))
        floor = float(scale.worth(np.array(self._goal.floor)))
        costs, doubts = self._outcomes.costs_and_doubts(plans)
        if measured is not None:
            is_known = np.isfinite(measured)
            costs, doubts = np.where(is_known, measured, costs), np.where(is_known, 0.0, doubts)
        reference = np.array(self._goal.reference)[self._axes]
        worth = np.zeros(len(plans))
        for node, weight in _COST_NODES if doubts.any() else ((0.0, 1.0),):
            at_node = (costs + node * doubts)[:, self._axes]
            steps, rates = improvement_rates(at_node, self._costs, self._worth, reference)
            worth += weight * expected_improvement(gained, NODE_WEIGHTS, steps, rates, floor)
        excess = self._excess(costs)
        return np.where(excess > 0.0, -excess, worth)

    def _excess(self, costs: Array) -> Array:
        """How far costs lie beyond what is of use, added up; (M, C) -> (M,)."""
        return np.maximum(costs - np.array(self._goal.reference), 0.0).sum(axis=1)


def _apart(plans: Levels, worth: Array, is_new: Callable[[Array], bool], n_wanted: int) -> Levels:
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
