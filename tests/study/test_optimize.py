from collections.abc import Callable
from pathlib import Path

import pytest

from autocompress.errors import AllTrialsFailedError, InputError, TrialError
from autocompress.executors.job import EvaluationJob
from autocompress.run_record import RunRecord
from autocompress.space.search_space import Knob, SearchSpace
from autocompress.study.listener import Listener
from autocompress.study.records import load_run
from autocompress.study.running_trials import trial_seed, weights_path
from autocompress.study.study import Study
from tests.study_fixtures import search_study

OpenStudy = Callable[..., Study]


def search(study: Study, executor: object, budget: int, **changes: object) -> RunRecord:
    settings = {"sampler": "tpe", "run_seed": 0, **changes}
    return search_study(study, executor, budget, **settings)  # type: ignore[arg-type]


def table(run: RunRecord) -> list[tuple[object, ...]]:
    return [(t.number, t.role, t.label, t.state, t.levels, t.measurement) for t in run.trials]


def test_run_search_finishes_exactly_the_budget(open_study: OpenStudy, make_executor: type) -> None:
    with open_study() as study:
        run = search(study, make_executor(), 20)

    assert len(run.trials) == 20
    assert [t.number for t in run.trials] == list(range(20))
    assert all(t.state == "complete" for t in run.trials)
    assert [t.role for t in run.trials[:13]] == ["baseline", *["control", "search"] * 6]
    assert {t.role for t in run.trials[13:]} == {"search"}
    assert len({t.plan.digest for t in run.trials}) == 19  # post-training int8 = uniform 8 bit


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_run_search_twelve_and_twelve_equal_twenty_four(
    open_study: OpenStudy, make_executor: type, sampler: str
) -> None:
    with open_study("unbroken") as study:
        unbroken = search(study, make_executor(), 24, sampler=sampler)
    with open_study("broken") as study:
        search(study, make_executor(), 12, sampler=sampler)
    with open_study("broken") as study:
        broken = search(study, make_executor(), 24, sampler=sampler)

    assert table(broken) == table(unbroken)


def test_run_search_does_nothing_when_the_budget_is_reached(
    open_study: OpenStudy, make_executor: type
) -> None:
    with open_study() as study:
        first = search(study, make_executor(), 8)
        executor = make_executor()
        assert table(search(study, executor, 8)) == table(first)
        assert table(search(study, executor, 5)) == table(first)

    assert executor.jobs == []


def test_run_search_evaluates_an_interrupted_trial_again_with_the_same_plan_and_seed(
    open_study: OpenStudy, make_executor: type
) -> None:
    class Killed(BaseException):
        """Stands for the power button: nothing is handed back."""

    def die(call: int) -> None:
        if call == 10:
            raise Killed

    with open_study("unbroken") as study:
        unbroken = search(study, make_executor(), 14)
    with open_study("broken") as study, pytest.raises(Killed):
        search(study, make_executor(die), 14)
    with open_study("broken") as study:
        assert [t.state for t in study.record().trials].count("running") == 1
        executor = make_executor()
        broken = search(study, executor, 14)

    assert table(broken) == table(unbroken)
    assert len(executor.jobs) == 5


def test_run_search_gives_up_a_trial_that_is_interrupted_twice(
    open_study: OpenStudy, make_executor: type
) -> None:
    class Killed(BaseException):
        pass

    def die(call: int) -> None:
        raise Killed

    for _ in range(2):
        with open_study() as study, pytest.raises(Killed):
            search(study, make_executor(lambda call: die(call) if call == 1 else None), 4)
        trials = load_run(study.folder).trials
        assert [t.state for t in trials].count("running") == 1
    with open_study() as study, pytest.raises(AllTrialsFailedError, match="interrupted"):
        search(study, make_executor(), 4)  # it was the baseline


def test_run_search_hands_a_trial_back_on_ctrl_c(
    open_study: OpenStudy, make_executor: type
) -> None:
    def stop(call: int) -> None:
        raise KeyboardInterrupt

    for _ in range(4):
        with open_study() as study, pytest.raises(KeyboardInterrupt):
            search(study, make_executor(stop), 3)
    with open_study() as study:
        run = search(study, make_executor(), 3)

    assert [t.state for t in run.trials] == ["complete"] * 3


def test_run_search_goes_on_when_a_trial_fails(open_study: OpenStudy, make_executor: type) -> None:
    def fail(call: int) -> None:
        if call in (9, 11):
            raise TrialError("nonfinite_loss", "The loss became nan.")

    with open_study() as study:
        run = search(study, make_executor(fail), 15)

    failed = [t for t in run.trials if t.state == "failed"]
    assert [t.number for t in failed] == [8, 10]
    assert failed[0].reason == "nonfinite_loss: The loss became nan."
    assert failed[0].measurement is None
    assert len(run.trials) == 15


def test_run_search_stops_after_five_equal_failures(
    open_study: OpenStudy, make_executor: type
) -> None:
    def fail(call: int) -> None:
        if call > 1:
            raise TrialError("oom", "The machine ran out of memory.")

    with open_study() as study:
        with pytest.raises(AllTrialsFailedError, match="out of memory") as caught:
            search(study, make_executor(fail), 50)
        assert len(study.record().trials) == 6

    assert caught.value.exit_code == 5


@pytest.mark.parametrize("reason", ["timeout", "memory", "oom"])
def test_a_baseline_that_had_too_little_time_or_memory_is_measured_again(
    open_study: OpenStudy, make_executor: type, reason: str
) -> None:
    def fail(call: int) -> None:
        raise TrialError(reason, "The trial took too much.")

    with (
        open_study() as study,
        pytest.raises(AllTrialsFailedError, match="could not be measured") as caught,
    ):
        search(study, make_executor(fail), 3)
    assert "larger `trial_timeout`" in caught.value.hint
    with open_study() as study:
        run = search(study, make_executor(), 3)
    assert [trial.state for trial in run.trials] == ["complete"] * 3


def test_run_search_stops_when_the_baseline_fails(
    open_study: OpenStudy, make_executor: type
) -> None:
    def fail(call: int) -> None:
        raise TrialError("export", "No exporter knows aten::odd.")

    with open_study() as study, pytest.raises(AllTrialsFailedError, match="aten::odd"):
        search(study, make_executor(fail), 50)


def test_run_search_stops_when_the_space_is_exhausted(
    open_study: OpenStudy, make_executor: type
) -> None:
    knob = Knob(kind="weight_bits", targets=("a",), levels=(32, 8, 4), label="a")
    with open_study(space=SearchSpace(knobs=(knob,))) as study:
        run = search(study, make_executor(), 50)

    assert {t.plan.digest for t in run.trials if t.measurement and t.measurement.fidelity} == {
        study.space.decode({knob.name: level}).digest for level in range(3)
    }


def test_run_search_keeps_weights_of_front_members_only_and_what_others_put_there(
    open_study: OpenStudy, make_executor: type
) -> None:
    with open_study() as study:
        others = {study.folder / "candidates" / f"{n}.safetensors" for n in ("mine", "trial_best")}
        for path in others:
            path.parent.mkdir(exist_ok=True)
            path.touch()
        run = search(study, make_executor(), 20)

    kept = set((study.folder / "candidates").iterdir()) - others
    assert kept == {weights_path(study.folder, t.number) for t in run.front()}
    assert 0 < len(kept) < 20
    assert all(path.exists() for path in others)


def test_run_search_tells_its_listener(open_study: OpenStudy, make_executor: type) -> None:
    told: list[object] = []
    listener = Listener(
        on_start=lambda number, label: told.append((number, label)),
        on_stage=lambda number, stage, share: told.append(stage),
        on_finish=lambda trial, run: told.append((trial.state, len(run.trials))),
    )
    with open_study() as study:
        search(study, make_executor(), 1, listener=listener)

    assert told == [(0, "baseline"), "tune", ("complete", 1)]


def test_trial_seed_is_the_same_in_every_session(tmp_path: Path) -> None:
    assert trial_seed(0, 3) == trial_seed(0, 3)
    assert len({trial_seed(seed, number) for seed in range(3) for number in range(9)}) == 27


def test_run_search_refuses_to_go_on_without_a_baseline(
    open_study: OpenStudy, make_executor: type
) -> None:
    def fail(call: int) -> None:
        raise TrialError("export", "No exporter knows aten::odd.")

    with open_study() as study, pytest.raises(AllTrialsFailedError):
        search(study, make_executor(fail), 5)
    executor = make_executor()
    with open_study() as study, pytest.raises(AllTrialsFailedError, match="aten::odd"):
        search(study, executor, 5)

    assert executor.jobs == []


def test_run_search_leaves_an_interrupted_trial_alone_when_the_budget_is_used(
    open_study: OpenStudy, make_executor: type
) -> None:
    class Killed(BaseException):
        pass

    def die(call: int) -> None:
        if call == 6:
            raise Killed

    with open_study() as study, pytest.raises(Killed):
        search(study, make_executor(die), 9)
    with open_study() as study:
        run = search(study, make_executor(), 5)

    assert [t.state for t in run.trials] == ["complete"] * 5 + ["running"]


def test_run_search_does_not_blame_a_trial_for_an_error_that_is_not_its_own(
    open_study: OpenStudy, make_executor: type
) -> None:
    def refuse(call: int) -> None:
        raise InputError("The task cannot be loaded.")

    for _ in range(4):
        with open_study() as study, pytest.raises(InputError, match="cannot be loaded"):
            search(study, make_executor(refuse), 2)
    with open_study() as study:
        assert [t.state for t in search(study, make_executor(), 2).trials] == ["complete"] * 2


def test_run_search_does_not_propose_a_failed_plan_again(
    open_study: OpenStudy, make_executor: type
) -> None:
    knobs = tuple(
        Knob(kind="weight_bits", targets=(n,), levels=(32, 8, 4), label=n) for n in ("a", "b")
    )

    def fail_now_and_then(call: int) -> None:
        if call > 4 and call % 2:
            raise TrialError(f"reason{call}", "It failed.")

    with open_study(space=SearchSpace(knobs=knobs)) as study:
        run = search(study, make_executor(fail_now_and_then), 50)

    tuned = [t for t in run.trials if t.label != "int8 post-training"]
    assert len({t.plan.digest for t in tuned}) == len(tuned) == 9


def test_run_search_does_not_hold_it_against_a_trial_that_its_driver_was_stopped_before_it(
    open_study: OpenStudy, make_executor: type
) -> None:
    """A trial left running, and not begun by the sessions after."""

    class Killed(BaseException):
        pass

    def die(call: int) -> None:
        raise Killed

    with open_study() as study:
        search(study, make_executor(), 4)
    for number in (4, 5):  # two of them, as several jobs leave them
        with open_study() as study:
            levels = study.record().trials[0].levels
            study.add({**levels, "weight_bits:stem": number - 3}, "search", f"trial {number}", 1)
    for _ in range(4):
        with open_study() as study, pytest.raises(KeyboardInterrupt):
            search(study, make_executor(_interrupt), 8)
    with open_study() as study, pytest.raises(Killed):
        search(study, make_executor(die), 8)
    with open_study() as study:
        run = search(study, make_executor(), 8)
    assert [t.state for t in run.trials] == ["complete"] * 8


def _interrupt(call: int) -> None:
    raise KeyboardInterrupt


def test_run_search_keeps_its_budget_when_it_died_between_measuring_and_telling(
    open_study: OpenStudy, make_executor: type, measure: Callable
) -> None:
    with open_study() as study:
        search(study, make_executor(), 9)
        levels = {**study.record().trials[0].levels, "weight_bits:stem": 4, "pruning_ratio:stem": 1}
        job = study.add(levels, "search", "trial 9", 1)
        plan = study.space.decode(levels)
        keep = weights_path(study.folder, 9)
        figures = measure(EvaluationJob(plan=plan, seed=0, fidelity=1, keep=keep))
        study._set(job.number, "measurement", figures.to_json())  # died before the next line
    executor = make_executor()
    with open_study() as study:
        run = search(study, executor, 10)
    assert [t.state for t in run.trials] == ["complete"] * 10
    assert executor.jobs == []
