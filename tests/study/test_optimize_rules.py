"""Limits, the dominance stop, the stop rules and training-free runs, as the driver follows them."""

import itertools
from collections.abc import Callable
from typing import Any

import optuna
import pytest

from autocompress.errors import AllTrialsFailedError, InputError, TrialError
from autocompress.evaluate.dominance import HopelessError
from autocompress.objective import Limits
from autocompress.run_record import RunRecord
from autocompress.space.sensitivity_table import Figures
from autocompress.study.listener import Listener
from autocompress.study.running_trials import weights_path
from autocompress.study.study import Study
from tests.study_fixtures import search_study

OpenStudy = Callable[..., Study]
LIMITS = Limits(max_drop=0.05, max_size_bytes=40_000)


class Killed(BaseException):
    """Stands for the power button: nothing is handed back."""


def search(study: Study, executor: object, budget: int, **changes: Any) -> RunRecord:
    settings = {"sampler": "random", "run_seed": 0, **changes}
    return search_study(study, executor, budget, **settings)  # type: ignore[arg-type]


def table(run: RunRecord) -> list[tuple[object, ...]]:
    return [
        (t.number, t.role, t.label, t.state, t.levels, t.measurement, t.reason) for t in run.trials
    ]


def dying(make: type, at_call: int) -> Any:
    def die(call: int) -> None:
        if call == at_call:
            raise Killed

    return make(die)


FOUND = Figures(divergence=1.0, size_bytes=900)


def stopping(*calls: int) -> Callable[[int], None]:
    """What makes these calls end as a candidate does that has no chance."""

    def stop(call: int) -> None:
        if call in calls:
            raise HopelessError(f"Not tuned: call {call}.", FOUND)

    return stop


# limits


def test_every_complete_trial_of_a_run_with_limits_carries_all_constraints(
    open_study: OpenStudy, make_executor: type
) -> None:
    with open_study(limits=LIMITS) as study:
        run = search(study, make_executor(), 15)
        told = study._study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))

    assert len(told) == 15
    for trial, record in zip(told, run.trials, strict=True):
        assert trial.constraints == run.excesses(record)
        assert set(trial.constraints) == {"max_drop", "max_size_bytes"}
    assert not run.is_feasible(run.trials[0])  # the baseline is too large


def test_optunas_best_trials_keep_the_limits(open_study: OpenStudy, make_executor: type) -> None:
    with open_study(limits=LIMITS) as study:
        run = search(study, make_executor(), 16)
        best = {trial.number for trial in study._study.best_trials}
        without = {
            trial.number
            for trial in optuna.study._multi_objective._get_pareto_front_trials(study._study)
        }

    assert best
    assert all(run.is_feasible(run.trials[number]) for number in best)
    assert {t.number for t in run.front()} <= best | {1}  # which has trials of fidelity 0, too
    assert without - best  # a limit took something away


def test_a_run_without_limits_writes_no_constraint(
    open_study: OpenStudy, make_executor: type
) -> None:
    with open_study() as study:
        search(study, make_executor(), 3)
        assert all(trial.constraints == {} for trial in study._study.get_trials())


def test_weights_are_kept_for_feasible_front_members(
    open_study: OpenStudy, make_executor: type
) -> None:
    with open_study(limits=LIMITS) as study:
        run = search(study, make_executor(), 20)
    kept = set((study.folder / "candidates").iterdir())
    assert kept == {weights_path(study.folder, trial.number) for trial in run.front()}
    assert kept
    assert weights_path(study.folder, 0) not in kept


def test_a_run_with_limits_that_was_killed_equals_an_unbroken_one(
    open_study: OpenStudy, make_executor: type
) -> None:
    with open_study("unbroken", limits=LIMITS) as study:
        unbroken = search(study, make_executor(), 16)
        constraints = [trial.constraints for trial in study._study.get_trials()]
    for at_call in (1, 7):
        with open_study("broken", limits=LIMITS) as study, pytest.raises(Killed):
            search(study, dying(make_executor, at_call), 16)
    with open_study("broken", limits=LIMITS) as study:
        broken = search(study, make_executor(), 16)
        assert [trial.constraints for trial in study._study.get_trials()] == constraints

    assert table(broken) == table(unbroken)
    assert broken.limits == LIMITS


# the dominance stop


def test_stopped_trials_count_but_are_no_failures(
    open_study: OpenStudy, make_executor: type
) -> None:
    with open_study() as study:
        run = search(study, make_executor(stopping(*range(8, 20))), 20)
        states = [trial.state for trial in study._study.get_trials()]

    assert [t.state for t in run.trials] == ["complete"] * 7 + ["stopped"] * 12 + ["complete"]
    assert states.count(optuna.trial.TrialState.PRUNED) == 12
    assert run.trials[7].reason == "Not tuned: call 8."
    assert run.trials[7].measurement is None
    assert len({t.plan.digest for t in run.trials[1:]}) == 18  # no stopped plan came again
    assert not {t.number for t in run.front()} & set(range(7, 19))


def test_stopped_trials_do_not_hide_a_row_of_failures(
    open_study: OpenStudy, make_executor: type
) -> None:
    def fail(call: int) -> None:
        if call > 7:
            raise (
                HopelessError(f"call {call}", FOUND)
                if call % 2
                else TrialError("crashed", f"call {call}")
            )

    with open_study() as study, pytest.raises(AllTrialsFailedError, match="5 trials in a row"):
        search(study, make_executor(fail), 50)
    with open_study() as study:
        states = [t.state for t in study.record().trials]
    assert states[7:] == ["failed", "stopped"] * 4 + ["failed"]


def test_rivals_are_given_to_searched_trials_only(
    open_study: OpenStudy, make_screening_executor: type
) -> None:
    executor = make_screening_executor()
    with open_study() as study:
        run = search(study, executor, 12)

    has_rivals = [job.rivals is not None for job in executor.jobs]
    assert has_rivals == [trial.role == "search" for trial in run.trials]
    assert run.trials[8].role == "search"
    rivals = executor.jobs[8].rivals
    assert {r.label for r in rivals.front} <= {t.label for t in run.trials[:8]}
    assert len(rivals.history) == 7  # the control of fidelity 0 is not among them
    assert rivals.has_latency


def test_without_the_ladder_nobody_has_rivals(
    open_study: OpenStudy, make_screening_executor: type
) -> None:
    executor = make_screening_executor()
    with open_study() as study:
        search(study, executor, 12, without={"early_stopping"})
    assert all(job.rivals is None for job in executor.jobs)


@pytest.mark.parametrize("limits", [Limits(), LIMITS])
def test_resumed_runs_stop_the_same_trials_as_an_unbroken_one(
    open_study: OpenStudy, make_screening_executor: type, limits: Limits
) -> None:
    unbroken_executor, last = make_screening_executor(), make_screening_executor()
    settings = {"run_seed": 3}
    with open_study("unbroken", limits=limits) as study:
        unbroken = search(study, unbroken_executor, 30, **settings)
    with open_study("broken", limits=limits) as study:
        search(study, make_screening_executor(), 12, **settings)
    for at_call in (3, 6):
        with open_study("broken", limits=limits) as study, pytest.raises(Killed):
            search(study, dying(make_screening_executor, at_call), 30, **settings)
    with open_study("broken", limits=limits) as study:
        broken = search(study, last, 30, **settings)

    assert table(broken) == table(unbroken)
    assert [t.state for t in unbroken.trials].count("stopped") >= 2
    n_last = len(last.jobs)
    assert [job.rivals for job in last.jobs] == [
        job.rivals for job in unbroken_executor.jobs[-n_last:]
    ]


def test_run_search_refuses_to_leave_out_what_it_has_not_got(
    open_study: OpenStudy, make_executor: type
) -> None:
    with open_study() as study, pytest.raises(InputError, match="'surogate'") as caught:
        search(study, make_executor(), 3, without={"surogate"})
    assert "Did you mean 'surrogate'?" in caught.value.hint


# stop rules


def test_run_search_ends_when_it_is_stalled_and_stays_so(
    open_study: OpenStudy, make_executor: type
) -> None:
    ends: list[str] = []
    rules = {"until_stalled": 4, "listener": Listener(on_end=ends.append)}
    with open_study() as study:
        run = search(study, make_executor(), 60, **rules)
        executor = make_executor()
        again = search(study, executor, 60, **rules)
        more = search(study, executor, run.n_finished + 2)

    assert ends == ["stalled", "stalled"]
    assert 11 <= run.n_finished < 60
    last = {t.number for t in [t for t in run.trials if t.role == "search"][-4:]}
    before = run.hypervolume(tuple(t for t in run.comparable if t.number not in last))
    assert run.hypervolume(run.comparable) <= before * 1.001
    assert table(again) == table(run)
    assert more.n_finished == run.n_finished + 2


def test_stalled_or_not_the_trials_are_those_of_a_run_with_a_budget(
    open_study: OpenStudy, make_executor: type
) -> None:
    with open_study("stalled") as study:
        stalled = search(study, make_executor(), 60, until_stalled=3)
    with open_study("budget") as study:
        run = search(study, make_executor(), stalled.n_finished)
    assert table(stalled) == table(run)


def test_run_search_starts_no_trial_after_its_time(
    open_study: OpenStudy, make_executor: type
) -> None:
    ends: list[str] = []
    ticks = itertools.count(step=10.0)  # each look at the clock finds ten seconds gone
    with open_study() as study:
        run = search(
            study,
            make_executor(),
            30,
            timeout_s=85.0,
            clock=lambda: next(ticks),
            listener=Listener(on_end=ends.append),
        )

    # three looks at the clock for a trial: before and after it is started, and for what is left
    assert [t.state for t in run.trials] == ["complete"] * 3
    assert ends == ["timeout"]
    with open_study() as study:
        assert search(study, make_executor(), 6, timeout_s=85.0).n_finished == 6


def test_run_search_says_why_it_ended(open_study: OpenStudy, make_executor: type) -> None:
    ends: list[str] = []
    with open_study() as study:
        for _ in range(2):
            search(study, make_executor(), 2, listener=Listener(on_end=ends.append))
    assert ends == ["budget", "budget"]


# training-free runs


def test_a_training_free_run_measures_and_compares_what_was_not_trained(
    open_study: OpenStudy, make_screening_executor: type
) -> None:
    executor = make_screening_executor()
    with open_study(fidelity=0) as study:
        run = search(study, executor, 14)
        assert len(study.history().complete) == 14

    assert {job.fidelity for job in executor.jobs} == {0}
    assert all(job.rivals is None for job in executor.jobs)
    assert run.fidelity == 0
    assert run.comparable == run.trials
    assert len(run.front()) > 1
    # "uniform 8 bit" is the same trial as "int8 post-training" where nothing is trained
    controls = [t.label for t in run.trials if t.role == "control"]
    assert controls[:2] == ["int8 post-training", "uniform 4 bit"]
    assert len({t.plan.digest for t in run.trials}) == 14


def test_a_training_free_run_resumes_as_an_unbroken_one(
    open_study: OpenStudy, make_executor: type
) -> None:
    with open_study("unbroken", fidelity=0) as study:
        unbroken = search(study, make_executor(), 14)
    for budget in (4, 9, 14):
        with open_study("broken", fidelity=0) as study:
            broken = search(study, make_executor(), budget)
    assert table(broken) == table(unbroken)
