"""Several trials under way at once, as the driver follows them."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from autocompress.errors import AllTrialsFailedError, TrialError
from autocompress.executors.job import EvaluationJob, OnStage, Outcome
from autocompress.run_record import RunRecord
from autocompress.space.search_space import Knob, SearchSpace
from autocompress.study.listener import Listener
from autocompress.study.study import Study
from tests.study_fixtures import search_study

OpenStudy = Callable[..., Study]


class Crowd:
    """Works on several trials at once, which end in an order of chance.

    Args:
        inner: Evaluates.
        n_slots: How many at once.
        n_ends: After so many it answers no more in time; None for no end.
    """

    def __init__(self, inner: Any, n_slots: int = 3, n_ends: int | None = None) -> None:
        self.n_slots = n_slots
        self.most = 0
        self.is_closed = False
        self._inner = inner
        self._n_ends = n_ends
        self._jobs: dict[int, EvaluationJob] = {}
        self._chance = random.Random(0)

    def submit(self, number: int, job: EvaluationJob) -> None:
        assert len(self._jobs) < self.n_slots
        assert number not in self._jobs
        self._jobs[number] = job
        self.most = max(self.most, len(self._jobs))

    def wait(self, on_stage: OnStage, timeout_s: float | None = None) -> Outcome | None:
        if self._n_ends == 0:
            assert timeout_s is not None
            return None
        self._n_ends = None if self._n_ends is None else self._n_ends - 1
        number = self._chance.choice(list(self._jobs))
        self._inner.submit(number, self._jobs.pop(number))
        return self._inner.wait(on_stage, timeout_s)

    def probe(self, job: Any) -> Any:
        assert len(self._jobs) < self.n_slots
        return self._inner.probe(job)

    def close(self) -> None:
        self.is_closed = True
        self._jobs.clear()


def search(study: Study, executor: Crowd, budget: int, **changes: Any) -> RunRecord:
    return search_study(study, executor, budget, **{"sampler": "random", **changes})


@pytest.mark.parametrize("sampler", ["random", "guided"])
def test_run_search_with_several_jobs_finishes_exactly_the_budget(
    open_study: OpenStudy, make_executor: type, sampler: str
) -> None:
    started: list[int] = []
    finished: list[int] = []
    listener = Listener(
        on_start=lambda number, label: started.append(number),
        on_finish=lambda trial, run: finished.append(trial.number),
    )
    crowd = Crowd(make_executor())
    with open_study() as study:
        run = search(study, crowd, 22, sampler=sampler, listener=listener)

    assert [t.state for t in run.trials] == ["complete"] * 22
    assert [t.number for t in run.trials] == started == list(range(22))
    assert finished[0] == 0  # the others are compared with the baseline
    assert sorted(finished) == started != finished
    assert crowd.most == 3
    assert len({t.plan.effective.digest for t in run.trials if t.role == "search"}) == len(
        [t for t in run.trials if t.role == "search"]
    )


def test_run_search_hands_back_every_trial_under_way_when_it_is_stopped(
    open_study: OpenStudy, make_executor: type
) -> None:
    def stop(call: int) -> None:
        if call in (6, 7, 8):
            raise KeyboardInterrupt

    inner = make_executor(stop)
    for _ in range(3):  # more often than a trial may be interrupted
        with open_study() as study, pytest.raises(KeyboardInterrupt):
            search(study, Crowd(inner), 12)
    with open_study() as study:
        assert [job.attempts for job in study.interrupted()] == [1, 1, 1]
    with open_study() as study:
        run = search(study, Crowd(make_executor()), 12)
    assert [t.state for t in run.trials] == ["complete"] * 12


def test_run_search_hands_back_what_does_not_end_in_time(
    open_study: OpenStudy, make_executor: type
) -> None:
    ends: list[str] = []
    crowd = Crowd(make_executor(), n_ends=4)
    with open_study() as study:
        run = search(study, crowd, 12, timeout_s=1000.0, listener=Listener(on_end=ends.append))

        assert ends == ["timeout"]
        assert crowd.is_closed
        assert [t.state for t in run.trials].count("complete") == 4
    with open_study() as study:
        assert {job.attempts for job in study.interrupted()} == {1}
    with open_study() as study:
        run = search(study, Crowd(make_executor()), 12)
    assert [t.state for t in run.trials] == ["complete"] * 12


def test_run_search_hands_back_the_others_when_trial_after_trial_fails(
    open_study: OpenStudy, make_executor: type
) -> None:
    def fail(call: int) -> None:
        if call > 1:
            raise TrialError("crashed", "always")

    with open_study() as study, pytest.raises(AllTrialsFailedError, match="5 trials in a row"):
        search(study, Crowd(make_executor(fail)), 50)
    with open_study() as study:
        states = [t.state for t in study.record().trials]
    assert states.count("failed") == 5
    assert states.count("running") == 2


def test_run_search_evaluates_a_trial_again_that_lost_its_worker_beside_others(
    open_study: OpenStudy, make_executor: type
) -> None:
    def die(call: int) -> None:
        if call in (4, 9):
            raise TrialError("worker_died", "The worker process was killed by signal 9.")

    inner = make_executor(die)
    with open_study() as study:
        run = search(study, Crowd(inner), 10)
    assert [t.state for t in run.trials] == ["complete"] * 10
    assert len(inner.jobs) == 12


def test_run_search_ends_where_the_space_does_with_jobs_left_over(
    open_study: OpenStudy, make_executor: type
) -> None:
    knob = Knob(kind="weight_bits", targets=("stem",), levels=(32, 8, 4), label="stem")
    ends: list[str] = []
    with open_study(space=SearchSpace(knobs=(knob,))) as study:
        run = search(study, Crowd(make_executor()), 50, listener=Listener(on_end=ends.append))
    assert ends == ["exhausted"]
    assert {t.state for t in run.trials} == {"complete"}
    assert {t.levels[knob.name] for t in run.trials} == {0, 1, 2}
