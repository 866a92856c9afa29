"""What comes next: the baseline, the option table, swept plans and controls, then proposals."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence, Set

import numpy as np

from autocompress.errors import AutocompressError, TrialError
from autocompress.evaluate.dominance import Rivals, rivals_of
from autocompress.evaluate.sensitivity import ProbePlan
from autocompress.executors.job import Executor, ProbeJob
from autocompress.measurement import Fidelity
from autocompress.plan import CompressionPlan
from autocompress.samplers.guided.look import Look, look_of
from autocompress.samplers.initial_design import Seed, make_seeds, next_seed, swept_levels
from autocompress.samplers.propose import GUIDED, Guidance, derive_seed, propose_levels
from autocompress.space.option_table import Figures, OptionTable
from autocompress.space.prediction import Predictor
from autocompress.study.study import Study
from autocompress.study.trials import Job

_LATENCY_TOLERANCE = 0.05  # of products of single options' ratios

MeasureTable = Callable[[ProbePlan], OptionTable]


class Strategy:
    """Decides which trial is started next, from nothing but the study.

    Args:
        study: Opened study.
        executor: Looks at plans without training.
        sampler: Name in `sampler.SAMPLERS`.
        run_seed: Seed of the run.
        without: Parts of the search that are left out, see `PARTS`.
        measure_table: Measures the option table; None to do without.
        n_shortlisted: Plans that are looked at at once before one of them is tuned.
    """

    def __init__(
        self,
        study: Study,
        executor: Executor,
        *,
        sampler: str,
        run_seed: int,
        without: Set[str],
        measure_table: MeasureTable | None,
        n_shortlisted: int,
    ) -> None:
        self._study = study
        self._executor = executor
        self._sampler = sampler
        self._run_seed = run_seed
        self._without = without
        self._measure_table = measure_table
        self._n_shortlisted = n_shortlisted
        self._predictor: Predictor | None = None
        self._seeds: list[Seed] | None = None
        self.is_waiting = False
        """Whether another driver is measuring the option table."""

    def prepare(self) -> bool:
        """Measure the option table and plan the start, once the baseline is measured.

        The table is kept in the study.

        Returns:
            Whether there was something to do, or to wait for: time may be up now.

        Raises:
            AutocompressError: If the untouched model cannot be looked at.
        """
        if self._seeds is not None or self._study.n_finished() == 0:
            return False
        self.is_waiting = self._needs_table and not self._has_table()
        if not self.is_waiting:
            self._predictor = self._open_table()
            self._seeds = self._all_seeds()
        return True

    def next_job(self, budget: int | None = None) -> Job | None:
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
            baseline = make_seeds(self._study.space)[0]
            return self._add(baseline, self._fidelity, budget)
        if self._seeds is None:
            return None
        started = {trial.label for trial in trials}
        upcoming = [seed for seed in self._seeds if seed.label not in started]
        seed = next_seed(upcoming, trials[-1].role)
        if seed is None:
            levels, looks = self._proposed(number, [seed.levels for seed in upcoming])
            if levels is not None:
                return self._study.add(levels, "search", None, self._fidelity, looks, budget=budget)
            if not upcoming:
                return None
            seed = upcoming[0]
        return self._add(seed, seed.fidelity, budget)

    def _add(self, seed: Seed, fidelity: Fidelity, budget: int | None) -> Job | None:
        return self._study.add(seed.levels, seed.role, seed.label, fidelity, budget=budget)

    @property
    def _fidelity(self) -> Fidelity:
        return self._study.fidelity

    @property
    def _needs_table(self) -> bool:
        is_used = self._sampler == GUIDED or "initial_design" not in self._without
        return (
            is_used and "sensitivity_table" not in self._without and self._measure_table is not None
        )

    def _has_table(self) -> bool:
        """Whether the study has its option table, measured now if nobody else is at it."""
        if self._study.option_table() is None:
            return self._study.alone(self._measure_if_missing)
        return True

    def _open_table(self) -> Predictor | None:
        table = self._study.option_table() if self._needs_table else None
        return None if table is None else Predictor(self._study.space, table)

    def _measure_if_missing(self) -> None:
        """Measure the table; another driver may have done so while this one waited."""
        if self._study.option_table() is not None:
            return
        assert self._measure_table is not None
        has_latency = self._study.has_latency
        try:
            table = self._measure_table(
                lambda plan: self._executor.probe(
                    ProbeJob(plan=plan, has_size=True, has_latency=has_latency)
                )
            )
        except TrialError as error:
            raise AutocompressError(
                f"The untouched model cannot be looked at without training: {error.message}",
                "Search without it, as another run: `without=sensitivity_table` `name=NAME`.",
            ) from error
        self._study.keep_option_table(table)

    def _all_seeds(self) -> list[Seed]:
        """Seeds, none trained more than the run trains; the first of equal ones."""
        swept: Sequence[Mapping[str, int]] = ()
        if self._predictor is not None and "initial_design" not in self._without:
            baseline = self._study.record().baseline
            measured = None if baseline is None else baseline.measurement
            swept = swept_levels(
                self._predictor,
                self._study.limits,
                has_latency=self._study.has_latency,
                baseline_latency_ms=None if measured is None else measured.latency_ms,
            )
        seeds: dict[tuple[str, int], Seed] = {}
        for seed in make_seeds(self._study.space, swept):
            fidelity = seed.fidelity if self._fidelity > 0 else self._fidelity
            plan = self._study.space.decode(seed.levels).effective
            seeds.setdefault((plan.digest, fidelity), dataclasses.replace(seed, fidelity=fidelity))
        return list(seeds.values())

    def _proposed(
        self, number: int, planned: Sequence[Mapping[str, int]]
    ) -> tuple[dict[str, int] | None, list[Look]]:
        """A plan that neither was tried nor is about to be, and what was looked at to choose it."""
        study, seen = self._study, self._study.seen()
        earlier = seen.looks
        looks: list[Look] = []

        def look_at(plans: Sequence[Mapping[str, int]]) -> list[Look]:
            looks.extend(found := self._looked_at(plans, earlier))
            return found

        guidance = Guidance(
            predictor=self._predictor,
            costs=tuple(o.field for o in study.objectives if o.direction == "minimize"),
            limits=study.limits,
            is_learning="surrogate" not in self._without,
            looks=earlier,
            look_at=None if "early_stopping" in self._without or self._fidelity == 0 else look_at,
            n_shortlisted=self._n_shortlisted,
        )
        unbuildable = [look.levels for look in earlier if look.divergence is None]
        levels = propose_levels(
            study.space,
            self._sampler,
            study.directions,
            seen.complete,
            run_seed=self._proposal_seed(),
            number=number,
            failed=[*seen.failed, *seen.stopped, *unbuildable, *planned],
            running=seen.running,
            guidance=guidance,
        )
        return levels, looks

    def _proposal_seed(self) -> int:
        """The run's; one of its own for each of several drivers, or all would propose the same."""
        signature = self._study.signature()
        return derive_seed(self._run_seed, *signature.items()) if signature else self._run_seed

    def _looked_at(self, plans: Sequence[Mapping[str, int]], earlier: Sequence[Look]) -> list[Look]:
        """Looks at plans; what an earlier look found is only judged anew."""
        run, known = self._study.record(), {_frozen(look.levels): look for look in earlier}
        rivals = rivals_of(run, len(run.trials))
        ratios = self._est_latency_ratios(plans) if rivals.has_latency else [None] * len(plans)
        looks = []
        for levels, ratio in zip(plans, ratios, strict=True):
            look = known.get(_frozen(levels))
            if look is None:
                look = look_at(levels, self._study.space.decode(levels), self._executor.probe)
            looks.append(judged(look, rivals, ratio))
        return looks

    def _est_latency_ratios(self, plans: Sequence[Mapping[str, int]]) -> list[float | None]:
        """What the table says of each plan's time, on its better side; None without a table."""
        if self._predictor is None:
            return [None] * len(plans)
        knobs = self._study.space.knobs
        levels = np.array([[plan[knob.name] for knob in knobs] for plan in plans])
        ratios = self._predictor.latency_ratio(levels) * (1.0 - _LATENCY_TOLERANCE)
        return [float(ratio) for ratio in ratios]


def look_at(
    levels: Mapping[str, int], plan: CompressionPlan, probe: Callable[[ProbeJob], Figures]
) -> Look:
    """Look at a plan: packed, not timed, since timing what is merely considered costs too much."""
    try:
        figures = probe(ProbeJob(plan=plan, has_size=True))
    except TrialError:
        return Look(levels=levels, divergence=None, size_bytes=None, has_chance=False)
    return look_of(levels, figures, has_chance=True)


def judged(look: Look, rivals: Rivals, est_latency_ratio: float | None = None) -> Look:
    """A look with its chance against rivals.

    Where latency counts a plan that was not timed is judged by its estimate, and without one only
    by its size; what has no chance when it is timed is stopped before it is tuned all the same.
    """
    if look.divergence is None:
        return look
    figures = Figures(
        divergence=look.divergence,
        size_bytes=look.size_bytes,
        latency_ratio=look.latency_ratio or est_latency_ratio,
    )
    try:
        rivals.check(figures)
    except TrialError:
        return dataclasses.replace(look, has_chance=False)
    return dataclasses.replace(look, has_chance=True)


def _frozen(levels: Mapping[str, int]) -> frozenset[tuple[str, int]]:
    return frozenset(levels.items())
