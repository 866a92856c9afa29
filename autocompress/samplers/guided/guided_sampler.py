"""The default sampler: `AcquisitionSearch` behind Optuna's interface, stateless."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from autocompress.accuracy_scale import accuracy_scale
from autocompress.measurement import Measurement
from autocompress.objective import LATENCY, SIZE, SLACK_HALVINGS, Limits
from autocompress.samplers.guided.acquisition_search import AcquisitionSearch, Goal
from autocompress.samplers.guided.outcome_model import MAX_PROBES, History, Probes
from autocompress.samplers.guided.probed_plan import ProbedPlan, ProbePlans
from autocompress.space.prediction import Predictor
from autocompress.space.search_space import SearchSpace
from autocompress.space.sensitivity_table import Array, Levels


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Guidance:
    """What the guided sampler knows besides the trials.

    Attributes:
        predictor: What the sensitivity table says; None to know nothing before the first trial.
        costs: Fields of `Measurement` that are minimised.
        limits: Constraints.
        metric: What the task's metric is called.
        is_learning: Whether trials correct the table.
        probes: Plans that were probed before, oldest first.
        probe_plans: Probes plans; None to propose without.
        n_shortlisted: Plans that are probed at once.
    """

    predictor: Predictor | None
    costs: Sequence[str]
    limits: Limits
    metric: str = "accuracy"
    is_learning: bool = True
    probes: Sequence[ProbedPlan] = ()
    probe_plans: ProbePlans | None = None
    n_shortlisted: int = 4


class GuidedSampler(BaseSampler):
    """Proposes by sensitivity table, surrogate and expected hypervolume improvement; see `guide`.

    It keeps nothing: what it needs lies in the study's trials, which carry their measurements as
    `Study.complete` writes them, and in the probes that `Study.add` wrote.

    Args:
        space: The knobs.
        guidance: What it knows besides the trials.
        seed: Source of chance.
        is_new: Whether a plan has not been tried.
    """

    def __init__(
        self,
        space: SearchSpace,
        guidance: Guidance,
        *,
        seed: int,
        is_new: Callable[[Mapping[str, int]], bool],
    ) -> None:
        self._space = space
        self._guidance = guidance
        self._costs = tuple(dict.fromkeys((*guidance.costs, *guidance.limits.costs)))
        self._random = np.random.default_rng(seed)
        self._is_new = is_new

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """All knobs, always."""
        return {k.name: IntDistribution(0, len(k.levels) - 1) for k in self._space.knobs}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Propose one plan; level indices by knob name."""
        return dict(self.propose(study.get_trials(deepcopy=False)) or {})

    def propose(self, trials: Sequence[FrozenTrial]) -> dict[str, int] | None:
        """Propose one plan.

        Args:
            trials: Complete and running ones count; the complete ones carry their measurement.

        Returns:
            Knob name -> level index, or None if nothing new was found.
        """
        tuned = [t for t in trials if t.state == TrialState.COMPLETE]
        baseline = next((t for t in tuned if not any(t.params.values())), None)
        if baseline is None:  # what everything else is compared with comes first
            return {knob.name: 0 for knob in self._space.knobs}
        running = [t for t in trials if t.state == TrialState.RUNNING and t.params]
        base = _measured(baseline)
        tuned = [t for t in tuned if _measured(t).fidelity == base.fidelity]
        guide = AcquisitionSearch(
            self._space,
            self._live(),
            self._guidance.predictor,
            self._goal(base),
            is_learning=self._guidance.is_learning,
        )
        plan = guide.propose(
            self._history([t for t in tuned if t is not baseline], base),
            self._levels(running),
            lambda levels: self._is_new(self._named(levels)),
            self._random,
            probes=self._as_arrays(self._guidance.probes[-2 * MAX_PROBES :], base),
            n_shortlisted=self._guidance.n_shortlisted,
            probe_plans=None
            if self._guidance.probe_plans is None
            else lambda plans: self._probed(plans, base),
        )
        return None if plan is None else self._named(plan)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A random level: for knobs that `sample_relative` left out."""
        assert isinstance(param_distribution, IntDistribution)
        return int(self._random.integers(param_distribution.high + 1))

    def _live(self) -> Sequence[Sequence[int]]:
        # what the table calls dominated may be the best in a cost that it says nothing about
        if self._guidance.predictor is not None and {*self._costs} <= {SIZE.field, LATENCY.field}:
            return self._guidance.predictor.live_levels()
        return [range(len(knob.levels)) for knob in self._space.knobs]

    def _goal(self, base: Measurement) -> Goal:
        limits = self._guidance.limits.costs
        slack = SLACK_HALVINGS * float(np.log(2.0)) if len(self._guidance.costs) > 1 else 0.0
        reference = []
        for field in self._costs:
            limit, untouched = limits.get(field), getattr(base, field)
            beyond = slack if field in self._guidance.costs else np.inf
            reference.append(beyond if limit is None else min(beyond, np.log(limit / untouched)))
        max_drop = self._guidance.limits.max_drop
        scale = accuracy_scale(base.accuracy, self._guidance.metric, max_drop)
        least = scale.floor if max_drop is None else base.accuracy - max_drop - 1e-9
        return Goal(
            scale=scale,
            floor=least,
            costs=self._costs,
            is_axis=tuple(field in self._guidance.costs for field in self._costs),
            reference=tuple(reference),
        )

    def _history(self, trials: Sequence[FrozenTrial], base: Measurement) -> History:
        measured = [_measured(trial) for trial in trials]
        costs = [
            [np.log(getattr(m, field) / getattr(base, field)) for field in self._costs]
            for m in measured
        ]
        return History(
            levels=self._levels(trials),
            accuracy=np.array([m.accuracy for m in measured]),
            divergence=np.array([_divergence(m, base) for m in measured], dtype=np.float64),
            untuned=np.array([m.untuned_divergence for m in measured], dtype=np.float64),
            costs=np.array(costs, dtype=np.float64).reshape(len(trials), len(self._costs)),
        )

    def _levels(self, trials: Sequence[FrozenTrial]) -> Levels:
        return self._rows([trial.params for trial in trials])

    def _as_arrays(self, probes: Sequence[ProbedPlan], base: Measurement) -> Probes:
        known = {
            SIZE.field: [(probed.size_bytes or np.nan) / base.size_bytes for probed in probes],
            LATENCY.field: [probed.latency_ratio or np.nan for probed in probes],
        }
        unknown = [np.nan] * len(probes)
        columns = [np.log(known.get(field, unknown)) for field in self._costs]
        return Probes(
            levels=self._rows([probed.levels for probed in probes]),
            untuned=np.array([probed.divergence for probed in probes], dtype=np.float64),
            costs=np.array(columns, dtype=np.float64).reshape(len(self._costs), len(probes)).T,
        )

    def _rows(self, plans: Sequence[Mapping[str, Any]]) -> Levels:
        rows = [[int(levels[knob.name]) for knob in self._space.knobs] for levels in plans]
        return np.array(rows, dtype=np.int64).reshape(len(plans), len(self._space.knobs))

    def _named(self, levels: Array) -> dict[str, int]:
        return {knob.name: int(i) for knob, i in zip(self._space.knobs, levels, strict=True)}

    def _probed(self, plans: Levels, base: Measurement) -> tuple[Probes, NDArray[np.bool_]]:
        assert self._guidance.probe_plans is not None
        probes = self._guidance.probe_plans([self._named(plan) for plan in plans])
        return (
            self._as_arrays(probes, base),
            np.array([probed.has_chance for probed in probes], dtype=bool),
        )


def _divergence(measured: Measurement, base: Measurement) -> float:
    """Divergence after tuning; the loss of accuracy stands in where it was not taken."""
    if measured.divergence is not None:
        return measured.divergence
    return max(0.0, base.accuracy - measured.accuracy)


def _measured(trial: FrozenTrial) -> Measurement:
    return Measurement.from_json(trial.user_attrs["measurement"])
