"""Which trial comes next, what the sensitivity table is asked, and what each part switches off."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autocompress.errors import AutocompressError, TrialError
from autocompress.evaluate.dominance import Rival, Rivals
from autocompress.evaluate.sensitivity import ProbePlan, SensitivityCache, measure_levels
from autocompress.executors.job import ProbeJob
from autocompress.objective import Limits
from autocompress.plan import CompressionPlan
from autocompress.run_record import RunRecord, TrialRecord
from autocompress.samplers.guided.probed_plan import ProbedPlan
from autocompress.samplers.initial_design import initial_trials
from autocompress.samplers.propose import Guidance, propose_levels
from autocompress.space.search_space import SearchSpace
from autocompress.space.sensitivity_table import Figures, SensitivityTable
from autocompress.study import strategy
from autocompress.study.strategy import judged, probe_plans
from autocompress.study.study import Study
from tests.study_fixtures import search_study

OpenStudy = Callable[..., Study]
CONTROLS = [
    *("int8 post-training", "uniform 8 bit", "uniform 4 bit", "uniform 3 bit", "uniform 2 bit"),
    "uniform pruning",
]


class Killed(BaseException):
    """Stands for the power button: nothing is handed back."""


class Table:
    """Measures the sensitivity table as the command line does; counts the probes."""

    def __init__(self, space: SearchSpace, folder: Path, executor: Any) -> None:
        self.jobs_before: list[int] = []
        self.n_probes = 0
        self._space = space
        self._folder = folder
        self._executor = executor

    def __call__(self, probe: ProbePlan) -> SensitivityTable:
        self.jobs_before.append(len(self._executor.jobs))
        before = len(self._executor.probes)
        cache = SensitivityCache("key", self._folder / f"{id(self)}-{len(self.jobs_before)}.jsonl")
        table = measure_levels(self._space, probe, cache)
        self.n_probes += len(self._executor.probes) - before
        return table


@pytest.fixture
def make_table(space: SearchSpace, tmp_path: Path) -> Callable[[Any], Table]:
    """Measures with the probes of an executor."""
    return lambda executor: Table(space, tmp_path, executor)


def search(study: Study, executor: object, budget: int, **changes: Any) -> RunRecord:
    settings = {"sampler": "guided", "run_seed": 0, **changes}
    return search_study(study, executor, budget, **settings)  # type: ignore[arg-type]


def rows(run: RunRecord) -> list[tuple[object, ...]]:
    return [
        (t.number, t.role, t.label, t.state, t.levels, t.measurement, t.reason) for t in run.trials
    ]


def swept(run: RunRecord) -> list[TrialRecord]:
    return [t for t in run.trials if t.label.startswith("initial")]


# the order of trials


@pytest.mark.parametrize("objectives", ["accuracy,size", "accuracy,size,latency"])
def test_trials_come_as_baseline_sweeps_controls_and_proposals_in_turns_then_proposals(
    open_study: OpenStudy, make_executor: type, make_table: Any, objectives: str
) -> None:
    executor = make_executor()
    with open_study(objectives=objectives) as study:
        run = search(study, executor, 17, measure_table=make_table(executor))

    sweeps = [trial.label for trial in swept(run)]
    assert len(sweeps) >= 2
    wanted = ["baseline", *sorted(sweeps, key=lambda label: int(label.split()[1]))]
    for control in CONTROLS:
        wanted += [f"trial {len(wanted)}", control]
    wanted += [f"trial {number}" for number in range(len(wanted), 17)]
    assert [t.label for t in run.trials] == wanted
    assert [t.role for t in run.trials] == [
        "baseline" if label == "baseline" else "control" if label in CONTROLS else "search"
        for label in wanted
    ]
    tuned = [t for t in run.trials if t.label != "int8 post-training"]
    assert len({t.plan.effective.digest for t in tuned}) == len(tuned)


def test_swept_plans_keep_the_limits(
    open_study: OpenStudy, make_executor: type, make_table: Any
) -> None:
    executor = make_executor()
    with open_study(limits=Limits(max_size_bytes=12_000, max_latency_ms=0.8)) as study:
        run = search(study, executor, 8, measure_table=make_table(executor))

    assert swept(run)
    assert all(run.is_feasible(trial) for trial in swept(run))
    assert not run.is_feasible(run.trials[0])


# the sensitivity table


def test_the_table_is_measured_once_after_the_baseline_and_kept_in_the_study(
    open_study: OpenStudy, make_executor: type, make_table: Any
) -> None:
    first, second = make_executor(), make_executor()
    table, another = make_table(first), make_table(second)
    with open_study() as study:
        search(study, first, 1, measure_table=table)
        assert table.jobs_before == []  # nothing has needed it yet
        assert study.sensitivity_table() is None
        search(study, first, 5, measure_table=table)
        kept = study.sensitivity_table()
    with open_study() as study:
        run = search(study, second, 11, measure_table=another)
        assert study.sensitivity_table() == kept

    assert table.jobs_before == [1]
    assert another.jobs_before == []
    assert swept(run)
    measured = make_table(second)(lambda plan: second.probe(full_probe(plan)))
    assert kept is not None
    assert kept == dataclasses.replace(
        measured, seconds=kept.seconds, seconds_here=kept.seconds_here
    )


def full_probe(plan: CompressionPlan, *, has_latency: bool = True) -> ProbeJob:
    return ProbeJob(plan=plan, has_size=True, has_latency=has_latency)


@pytest.mark.parametrize(
    ("objectives", "limits", "has_latency"),
    [
        ("accuracy,size", Limits(), False),
        ("accuracy,size,latency", Limits(), True),
        ("accuracy,size", Limits(max_latency_ms=2.0), True),
    ],
)
def test_plans_are_timed_only_where_latency_counts(
    open_study: OpenStudy,
    make_executor: type,
    make_table: Any,
    objectives: str,
    limits: Limits,
    has_latency: bool,
) -> None:
    executor = make_executor()
    with open_study(objectives=objectives, limits=limits) as study:
        search(study, executor, 2, measure_table=make_table(executor))
    probes = [full_probe(job.plan, has_latency=has_latency) for job in executor.probes]
    assert executor.probes == probes
    assert probes


def test_a_model_that_cannot_be_looked_at_ends_the_search_and_nothing_else(
    open_study: OpenStudy, make_executor: type, make_table: Any
) -> None:
    def refuse(probe: ProbePlan) -> SensitivityTable:
        raise TrialError("export", "No exporter knows aten::odd.")

    with open_study() as study, pytest.raises(AutocompressError, match="aten::odd") as caught:
        search(study, make_executor(), 3, measure_table=refuse)
    assert (
        caught.value.hint
        == "Search without it, as another run: `without=sensitivity_table` `name=NAME`."
    )
    executor = make_executor()
    with open_study() as study:
        assert [t.state for t in study.record().trials] == ["complete"]
        run = search(study, executor, 3, measure_table=make_table(executor))
    assert [t.state for t in run.trials] == ["complete"] * 3


def test_time_may_be_up_once_the_table_is_measured(
    open_study: OpenStudy, make_executor: type, make_table: Any
) -> None:
    executor, hours = make_executor(), [0.0]
    table = make_table(executor)

    def measure(probe: ProbePlan) -> SensitivityTable:
        hours[0] += 2.0
        return table(probe)

    with open_study() as study:
        run = search(
            study, executor, 9, measure_table=measure, timeout_s=1.0, clock=lambda: hours[0]
        )
        assert study.sensitivity_table() is not None
    assert [t.label for t in run.trials] == ["baseline"]


def test_without_a_way_to_measure_it_there_is_no_table(
    open_study: OpenStudy, make_executor: type
) -> None:
    with open_study() as study:
        run = search(study, make_executor(), 8)
        assert study.sensitivity_table() is None
    assert [t.label for t in run.trials[:4]] == ["baseline", CONTROLS[0], "trial 2", CONTROLS[1]]


# what can be left out


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a search without some part did.

    Attributes:
        run: The run.
        n_tables: How often the sensitivity table was measured.
        n_probes: Probes plans besides those of the table.
        guidance: What the samplers were told.
        has_rivals: Whether any candidate had to have a chance to be tuned.
    """

    run: RunRecord
    n_tables: int
    n_probes: int
    guidance: tuple[Guidance, ...]
    has_rivals: bool


@pytest.fixture
def outcome(
    open_study: OpenStudy,
    make_executor: type,
    make_table: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Outcome]:
    """Search for 12 trials without some parts."""

    def search_without(*parts: str, fidelity: int = 1, **changes: Any) -> Outcome:
        told: list[Guidance] = []

        def propose(*arguments: Any, guidance: Guidance, **options: Any) -> Any:
            told.append(guidance)
            return propose_levels(*arguments, guidance=guidance, **options)

        monkeypatch.setattr(strategy, "propose_levels", propose)
        executor = make_executor()
        table = make_table(executor)
        with open_study(fidelity=fidelity) as study:
            run = search(study, executor, 12, without=set(parts), measure_table=table, **changes)
        return Outcome(
            run=run,
            n_tables=len(table.jobs_before),
            n_probes=len(executor.probes) - table.n_probes,
            guidance=tuple(told),
            has_rivals=any(job.rivals is not None for job in executor.jobs),
        )

    return search_without


def test_with_all_its_parts_a_search_sweeps_learns_and_screens(
    outcome: Callable[..., Outcome],
) -> None:
    found = outcome()
    assert found.n_tables == 1
    assert len(swept(found.run)) >= 2
    n_proposed = sum(t.label.startswith("trial") for t in found.run.trials)
    assert len(found.guidance) == n_proposed >= 2
    assert found.n_probes > n_proposed  # several plans for each
    assert all(g.predictor is not None and g.is_learning for g in found.guidance)
    known = [len(g.probes) for g in found.guidance]
    assert known[0] == 0
    assert known == sorted(set(known)), "each proposal knows the probes of those before it"
    assert found.has_rivals


def test_without_the_table_nothing_is_measured_or_swept(outcome: Callable[..., Outcome]) -> None:
    found = outcome("sensitivity_table")
    assert found.n_tables == 0
    assert not swept(found.run)
    assert all(g.predictor is None for g in found.guidance)
    assert found.n_probes > 0  # a probe needs no table


def test_without_seeds_nothing_is_swept_but_proposals_know_the_table(
    outcome: Callable[..., Outcome],
) -> None:
    found = outcome("initial_design")
    assert found.n_tables == 1
    assert not swept(found.run)
    assert all(g.predictor is not None for g in found.guidance)


def test_without_the_ladder_no_plan_is_looked_at_before_it_is_tuned(
    outcome: Callable[..., Outcome],
) -> None:
    found = outcome("early_stopping")
    assert found.n_probes == 0
    assert found.guidance
    assert all(g.probe_plans is None for g in found.guidance)
    assert not found.has_rivals
    assert found.n_tables == 1
    assert swept(found.run)


def test_without_the_surrogate_trials_teach_nothing(outcome: Callable[..., Outcome]) -> None:
    found = outcome("surrogate")
    assert found.guidance
    assert not any(g.is_learning for g in found.guidance)
    assert found.n_tables == 1
    assert swept(found.run)
    assert found.n_probes > 0


def test_other_samplers_sweep_the_table_and_screen_nothing(outcome: Callable[..., Outcome]) -> None:
    found = outcome(sampler="tpe")
    assert found.n_tables == 1
    assert len(swept(found.run)) >= 2
    assert found.n_probes == 0


def test_other_samplers_need_no_table_without_seeds(outcome: Callable[..., Outcome]) -> None:
    found = outcome("initial_design", sampler="tpe")
    assert found.n_tables == 0
    assert not swept(found.run)


def test_a_training_free_run_screens_nothing(outcome: Callable[..., Outcome]) -> None:
    found = outcome(fidelity=0)
    assert {t.measurement.fidelity for t in found.run.trials if t.measurement} == {0}
    assert found.n_tables == 1
    assert swept(found.run)
    assert found.guidance
    assert found.n_probes == 0
    assert not found.has_rivals


# resumed runs


@pytest.fixture
def unbroken(open_study: OpenStudy, make_screening_executor: type, make_table: Any) -> RunRecord:
    """24 trials in one go."""
    executor = make_screening_executor()
    with open_study("unbroken") as study:
        return search(study, executor, 24, measure_table=make_table(executor))


def dying(make: type, at_call: int) -> Any:
    def die(call: int) -> None:
        if call == at_call:
            raise Killed

    return make(die)


def test_guided_runs_killed_anywhere_equal_an_unbroken_one(
    open_study: OpenStudy,
    make_screening_executor: type,
    make_table: Any,
    unbroken: RunRecord,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def session(budget: int, executor: Any) -> tuple[RunRecord, Table]:
        table = make_table(executor)
        with open_study("broken") as study:
            return search(study, executor, budget, measure_table=table), table

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Study, "keep_sensitivity_table", die)  # measured, but lost
        with pytest.raises(Killed):
            session(24, make_screening_executor())
    with monkeypatch.context() as patch:
        patch.setattr(strategy, "initial_trials", die_after_baseline(die))
        with pytest.raises(Killed):
            session(24, make_screening_executor())  # between the table and the first seed
    with open_study("broken") as study:
        assert study.sensitivity_table() is not None
        assert len(study.record().trials) == 1
    with pytest.raises(Killed):
        session(24, dying(make_screening_executor, 1))  # in the first seed
    _, table = session(12, make_screening_executor())
    assert table.jobs_before == []
    with pytest.raises(Killed):
        session(24, dying(make_screening_executor, 4))  # in a proposal
    broken, table = session(24, make_screening_executor())

    assert table.jobs_before == []
    assert rows(broken) == rows(unbroken)
    assert len(broken.trials) == 24


def die_after_baseline(die: Callable[[], None]) -> Callable[..., Any]:
    """`initial_trials` that dies where it is asked for all seeds."""

    def make(space: SearchSpace, *swept_plans: Any) -> Any:
        return die() if swept_plans else initial_trials(space)

    return make


def test_twelve_and_twelve_guided_trials_equal_twenty_four(
    open_study: OpenStudy, make_screening_executor: type, make_table: Any, unbroken: RunRecord
) -> None:
    for budget in (12, 24):
        executor = make_screening_executor()
        with open_study("broken") as study:
            broken = search(study, executor, budget, measure_table=make_table(executor))
    assert rows(broken) == rows(unbroken)


# screening


RIVALS = Rivals(
    front=(Rival(label="best", accuracy=0.9, size_bytes=500, latency_ratio=None),),
    history=((0.5, 0.8),) * 6,
    has_latency=False,
)


def probed_plan(divergence: float = 0.4, size_bytes: int = 1000) -> ProbedPlan:
    return ProbedPlan(levels={}, divergence=divergence, size_bytes=size_bytes, has_chance=True)


def test_a_look_packs_and_does_not_time() -> None:
    asked: list[ProbeJob] = []

    def probe(job: ProbeJob) -> Figures:
        asked.append(job)
        return Figures(divergence=0.4, size_bytes=1000)

    plan, levels = CompressionPlan(), {"bits": 2}
    probed = ProbedPlan(levels=levels, divergence=0.4, size_bytes=1000, has_chance=True)
    assert probe_plans(levels, plan, probe) == probed
    assert asked == [full_probe(plan, has_latency=False)]


@pytest.mark.parametrize(
    ("divergence", "size_bytes", "has_chance"),
    [
        (0.4, 1000, False),  # what started no better lost to a smaller file
        (0.6, 1000, True),  # nothing started there
        (0.4, 400, True),  # nothing is as small
    ],
)
def test_a_look_is_judged_by_its_rivals(
    divergence: float, size_bytes: int, has_chance: bool
) -> None:
    assert judged(probed_plan(divergence, size_bytes), RIVALS).has_chance == has_chance


def test_a_look_without_a_chance_can_get_one() -> None:
    probed = judged(probed_plan(), RIVALS)
    better = dataclasses.replace(RIVALS, history=(*RIVALS.history, (0.5, 0.95)))
    assert not probed.has_chance
    assert judged(probed, better).has_chance


@pytest.mark.parametrize(("limit", "has_chance"), [(1000, True), (990, True), (970, False)])
def test_what_is_larger_than_allowed_has_no_chance(limit: int, has_chance: bool) -> None:
    limited = dataclasses.replace(RIVALS, front=(), max_size_bytes=limit)
    assert judged(probed_plan(), limited).has_chance == has_chance


def test_what_cannot_be_built_has_neither_score_nor_chance() -> None:
    def probe(job: ProbeJob) -> Figures:
        raise TrialError("compress", "Layer 'a' would be empty.")

    probed = judged(probe_plans({}, CompressionPlan(), probe), RIVALS)
    assert probed == ProbedPlan(levels={}, divergence=None, size_bytes=None, has_chance=False)


@pytest.mark.parametrize(
    ("estimate", "has_chance"),
    [
        (None, True),  # nothing to judge by
        (0.4, True),  # faster than what is as accurate
        (0.6, False),
    ],
)
def test_where_latency_counts_a_look_is_judged_by_its_estimate(
    estimate: float | None, has_chance: bool
) -> None:
    rivals = tuple(dataclasses.replace(rival, latency_ratio=0.5) for rival in RIVALS.front)
    history = tuple((9.0, 0.1) for _ in range(6))
    timed = dataclasses.replace(RIVALS, has_latency=True, front=rivals, history=history)
    probed = probed_plan(divergence=9.0)
    assert judged(probed, timed, estimate).has_chance == has_chance
    measured = dataclasses.replace(probed, latency_ratio=0.4)
    assert judged(measured, timed, estimate).has_chance, "what was timed needs no estimate"


def test_no_plan_is_looked_at_twice_and_a_reopened_study_knows_all_looks(
    open_study: OpenStudy, make_screening_executor: type
) -> None:
    executor = make_screening_executor()
    with open_study() as study:
        search(study, executor, 24, without={"sensitivity_table"})
        probes = study.history().probes
    with open_study() as study:
        assert study.history().probes == probes
    plans = [job.plan.digest for job in executor.probes]
    assert len(probes) >= len(plans) > 0
    assert len(plans) == len(set(plans))


@pytest.mark.parametrize("n_shortlisted", [1, 4])
def test_what_a_look_finds_too_large_is_not_tuned(
    open_study: OpenStudy, make_screening_executor: type, n_shortlisted: int
) -> None:
    """Whatever is proposed where hardly anything is small enough, only what is gets tuned."""
    executor = make_screening_executor()
    limits = Limits(max_size_bytes=320)
    with open_study(limits=limits, objectives="accuracy,size") as study:
        run = search(
            study, executor, 24, without={"sensitivity_table"}, n_shortlisted=n_shortlisted
        )
    proposed = [t for t in run.trials if t.label.startswith("trial")]
    tuned = [t.measurement.size_bytes for t in proposed if t.measurement]
    assert any(t.state == "stopped" and "are allowed" in str(t.reason) for t in proposed)
    assert all(size * 0.98 <= 320 for size in tuned)
