"""What comes next: baseline, sensitivity table, initial design, then proposals."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence, Set

import numpy as np

from autocompress.errors import AutocompressError, TrialError
from autocompress.evaluate.dominance import Rivals, rivals_of
from autocompress.evaluate.sensitivity import ProbePlan
from autocompress.executors.job import Executor, ProbeJob
from autocompress.measurement import Fidelity
from autocompress.plan import CompressionPlan
from autocompress.samplers.guided.guided_sampler import Guidance
from autocompress.samplers.guided.probed_plan import ProbedPlan, probed_plan
from autocompress.samplers.initial_design import (
    InitialTrial,
    depth_path,
    initial_trials,
    next_initial_trial,
    swept_plans,
)
from autocompress.samplers.propose import GUIDED, derive_seed, propose_levels
from autocompress.space.prediction import Predictor
from autocompress.space.sensitivity_table import Figures, SensitivityTable
from autocompress.study.study import Study
from autocompress.study.trials import PendingTrial

_LATENCY_TOLERANCE = 0.05  # of products of single options' ratios

MeasureTable = Callable[[ProbePlan], SensitivityTable]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SearchMethod:
    """How a search finds its plans.

    Attributes:
        sampler: Name in `samplers.propose.SAMPLERS`.
        run_seed: Seed of the run.
        without: Names in `study.optimize.PARTS` of what is left out. Proposals and outcomes depend
            on it: it belongs into the study's identity.
        measure_table: Measures the sensitivity table with the probe it is given, once the baseline
            is measured and if anything needs it; None to do without.
        n_shortlisted: Plans that the guided sampler probes at once before one is tuned, >= 1.
    """

    sampler: str
    run_seed: int
    without: Set[str] = frozenset()
    measure_table: MeasureTable | None = None
    n_shortlisted: int = 4


class Strategy:
    """Decides which trial is started next, from nothing but the study.

    Args:
        study: Opened study.
        executor: Probes plans without training.
        method: How plans are found.
    """

    def __init__(self, study: Study, executor: Executor, method: SearchMethod) -> None:
        self._study = study
        self._executor = executor
        self._method = method
        self._predictor: Predictor | None = None
        self._initial: list[InitialTrial] | None = None
        self.is_waiting = False
        """Whether another driver is measuring the sensitivity table."""

    def prepare(self) -> bool:
        """Measure the sensitivity table and plan the start, once the baseline is measured.

        The table is kept in the study.

        Returns:
            Whether there was something to do, or to wait for: time may be up now.

        Raises:
            AutocompressError: If the original model cannot be probed.
        """
        if self._initial is not None or self._study.n_finished() == 0:
            return False
        self.is_waiting = self._needs_table and not self._has_table()
        if not self.is_waiting:
            self._predictor = self._open_table()
            self._initial = self._all_initial()
        return True

    def next_job(self, budget: int | None = None) -> PendingTrial | None:
        """Start the next trial.

        Args:
            budget: Trials the study may hold; None for any number.

        Returns:
            The trial, or None as long as the baseline is being measured, if every plan of the space
            has been tried, and if another driver was faster.
        """
        self.prepare()
        trials = self._study.record().trials
        number = len(trials)
        if number == 0:
            baseline = initial_trials(self._study.space)[0]
            return self._add(baseline, self._fidelity, budget)
        if self._initial is None:
            return None
        started = {trial.label for trial in trials}
        upcoming = [trial for trial in self._initial if trial.label not in started]
        fixed = {trial.label for trial in self._initial if trial.role != "baseline"}
        is_after_fixed = trials[-1].label in fixed
        initial = next_initial_trial(upcoming, is_after_fixed=is_after_fixed)
        if initial is None:
            levels, probes = self._proposed(number, [trial.levels for trial in upcoming])
            if levels is not None:
                return self._study.add(
                    levels, "search", None, self._fidelity, probes, budget=budget
                )
            if not upcoming:
                return None
            initial = upcoming[0]
        return self._add(initial, initial.fidelity, budget)

    def _add(
        self, initial: InitialTrial, fidelity: Fidelity, budget: int | None
    ) -> PendingTrial | None:
        return self._study.add(initial.levels, initial.role, initial.label, fidelity, budget=budget)

    @property
    def _fidelity(self) -> Fidelity:
        return self._study.fidelity

    @property
    def _needs_table(self) -> bool:
        is_used = self._method.sampler == GUIDED or "initial_design" not in self._method.without
        return (
            is_used
            and "sensitivity_table" not in self._method.without
            and self._method.measure_table is not None
        )

    def _has_table(self) -> bool:
        """Whether the study has its sensitivity table, measured now if nobody else is at it."""
        if self._study.sensitivity_table() is None:
            return self._study.alone(self._measure_if_missing)
        return True

    def _open_table(self) -> Predictor | None:
        table = self._study.sensitivity_table() if self._needs_table else None
        return None if table is None else Predictor(self._study.space, table)

    def _measure_if_missing(self) -> None:
        """Measure the table; another driver may have done so while this one waited."""
        if self._study.sensitivity_table() is not None:
            return
        assert self._method.measure_table is not None
        has_latency = self._study.has_latency
        try:
            table = self._method.measure_table(
                lambda plan: self._executor.probe(
                    ProbeJob(plan=plan, has_size=True, has_latency=has_latency)
                )
            )
        except TrialError as error:
            raise AutocompressError(
                f"The original model cannot be probed without training: {error.message}",
                "Search without it, as another run: `without=sensitivity_table` `name=NAME`.",
            ) from error
        self._study.keep_sensitivity_table(table)

    def _all_initial(self) -> list[InitialTrial]:
        """The initial trials, none trained more than the run trains; the first of equal ones."""
        swept: Sequence[Mapping[str, int]] = ()
        depths = [] if self._predictor is None else depth_path(self._predictor)
        if self._predictor is not None and "initial_design" not in self._method.without:
            baseline = self._study.record().baseline
            measured = None if baseline is None else baseline.measurement
            swept = swept_plans(
                self._predictor,
                self._study.limits,
                has_latency=self._study.has_latency,
                baseline_latency_ms=None if measured is None else measured.latency_ms,
            )
        found: dict[tuple[str, int], InitialTrial] = {}
        for trial in initial_trials(self._study.space, swept, depths):
            fidelity = trial.fidelity if self._fidelity > 0 else self._fidelity
            plan = self._study.space.decode(trial.levels).effective
            found.setdefault((plan.digest, fidelity), dataclasses.replace(trial, fidelity=fidelity))
        return list(found.values())

    def _proposed(
        self, number: int, planned: Sequence[Mapping[str, int]]
    ) -> tuple[dict[str, int] | None, list[ProbedPlan]]:
        """A plan that neither was tried nor is about to be, and what was probed to choose it."""
        study, seen = self._study, self._study.history()
        earlier = seen.probes
        probes: list[ProbedPlan] = []

        def probe_plans(plans: Sequence[Mapping[str, int]]) -> list[ProbedPlan]:
            probes.extend(found := self._probed(plans, earlier))
            return found

        guidance = Guidance(
            predictor=self._predictor,
            costs=tuple(o.field for o in study.objectives if o.direction == "minimize"),
            limits=study.limits,
            metric=study.metric,
            is_learning="surrogate" not in self._method.without,
            probes=earlier,
            probe_plans=None
            if "early_stopping" in self._method.without or self._fidelity == 0
            else probe_plans,
            n_shortlisted=self._method.n_shortlisted,
        )
        unbuildable = [probed.levels for probed in earlier if probed.divergence is None]
        levels = propose_levels(
            study.space,
            self._method.sampler,
            study.directions,
            seen.complete,
            run_seed=self._proposal_seed(),
            number=number,
            failed=[*seen.failed, *seen.stopped, *unbuildable, *planned],
            running=seen.running,
            guidance=guidance,
        )
        return levels, probes

    def _proposal_seed(self) -> int:
        """The run's; one of its own for each of several drivers, or all would propose the same."""
        signature = self._study.signature()
        return (
            derive_seed(self._method.run_seed, *signature.items())
            if signature
            else self._method.run_seed
        )

    def _probed(
        self, plans: Sequence[Mapping[str, int]], earlier: Sequence[ProbedPlan]
    ) -> list[ProbedPlan]:
        """Probes plans; what an earlier probe found is only judged anew."""
        run, known = self._study.record(), {_frozen(probed.levels): probed for probed in earlier}
        rivals = rivals_of(run, len(run.trials))
        ratios = self._est_latency_ratios(plans) if rivals.has_latency else [None] * len(plans)
        probes = []
        for levels, ratio in zip(plans, ratios, strict=True):
            probed = known.get(_frozen(levels))
            if probed is None:
                probed = probe_plans(levels, self._study.space.decode(levels), self._executor.probe)
            probes.append(judged(probed, rivals, ratio))
        return probes

    def _est_latency_ratios(self, plans: Sequence[Mapping[str, int]]) -> list[float | None]:
        """What the table says of each plan's time, on its better side; None without a table."""
        if self._predictor is None:
            return [None] * len(plans)
        knobs = self._study.space.knobs
        levels = np.array([[plan[knob.name] for knob in knobs] for plan in plans])
        ratios = self._predictor.latency_ratio(levels) * (1.0 - _LATENCY_TOLERANCE)
        return [float(ratio) for ratio in ratios]


def probe_plans(
    levels: Mapping[str, int], plan: CompressionPlan, probe: Callable[[ProbeJob], Figures]
) -> ProbedPlan:
    """Probe a plan: packed, not timed, since timing what is merely considered costs too much."""
    try:
        figures = probe(ProbeJob(plan=plan, has_size=True))
    except TrialError:
        return ProbedPlan(levels=levels, divergence=None, size_bytes=None, has_chance=False)
    return probed_plan(levels, figures, has_chance=True)


def judged(
    probed: ProbedPlan, rivals: Rivals, est_latency_ratio: float | None = None
) -> ProbedPlan:
    """A probe with its chance against rivals.

    Where latency counts a plan that was not timed is judged by its estimate, and without one only
    by its size; what has no chance when it is timed is stopped before it is tuned all the same.
    """
    if probed.divergence is None:
        return probed
    figures = Figures(
        divergence=probed.divergence,
        size_bytes=probed.size_bytes,
        latency_ratio=probed.latency_ratio or est_latency_ratio,
    )
    try:
        rivals.check(figures)
    except TrialError:
        return dataclasses.replace(probed, has_chance=False)
    return dataclasses.replace(probed, has_chance=True)


def _frozen(levels: Mapping[str, int]) -> frozenset[tuple[str, int]]:
    return frozenset(levels.items())
