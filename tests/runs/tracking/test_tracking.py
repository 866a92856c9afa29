import threading
from collections.abc import Callable, Mapping, Set
from typing import Any

import pytest

from autocompress.errors import AutocompressError, InputError
from autocompress.run_record import RunRecord
from autocompress.runs.tracking.tracker import TrackedRun, TrackedTrial, progress_of
from autocompress.runs.tracking.tracking import Tracking

Search = Callable[..., RunRecord]


class Notebook:
    """Keeps what it is told; `fail` may raise, given the number of a trial."""

    def __init__(self, known: Set[int] = frozenset(), fail: Callable[[int], None] | None = None):
        self.known = known
        self.fail = fail or (lambda number: None)
        self.trials: list[TrackedTrial] = []
        self.steps: list[int] = []
        self.progress: list[Mapping[str, float]] = []
        self.is_closed = False

    def open(self, run: TrackedRun) -> Set[int]:
        return self.known

    def log(self, trial: TrackedTrial, progress: Mapping[str, float], step: int) -> None:
        self.fail(trial.number)
        self.trials.append(trial)
        self.progress.append(progress)
        self.steps.append(step)

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def warnings() -> list[str]:
    return []


def test_tracking_tells_of_every_finished_trial_once(search: Search, warnings: list[str]) -> None:
    notebook = Notebook()
    run = search(tracking=Tracking({"notebook": notebook}, warnings.append))
    assert [trial.number for trial in notebook.trials] == [0, 1, 2, 3]
    assert [trial.state for trial in notebook.trials] == [t.state for t in run.trials]
    assert notebook.steps == [1, 2, 3, 4]
    assert notebook.is_closed
    assert warnings == []


def test_tracking_of_a_resumed_search_writes_what_is_missing_only(
    search: Search, warnings: list[str]
) -> None:
    search()
    notebook = Notebook(known={0, 2})
    search(6, Tracking({"notebook": notebook}, warnings.append))
    assert [trial.number for trial in notebook.trials] == [1, 3, 4, 5]
    assert notebook.steps == [3, 4, 5, 6]


def test_a_tracker_that_fails_warns_once_and_the_others_and_the_search_go_on(
    search: Search, warnings: list[str]
) -> None:
    def fail(number: int) -> None:
        if number >= 1:
            raise AutocompressError("The server is away.")

    broken, sound = Notebook(fail=fail), Notebook()
    run = search(tracking=Tracking({"broken": broken, "sound": sound}, warnings.append))
    assert run.n_finished == 4
    assert [trial.number for trial in broken.trials] == [0]
    assert [trial.number for trial in sound.trials] == [0, 1, 2, 3]
    assert warnings == [
        "The server is away. The search goes on without broken; the same command writes what is "
        "missing there."
    ]


def test_a_tracker_that_hangs_does_not_hold_the_search_up(
    search: Search, warnings: list[str]
) -> None:
    goes_on = threading.Event()
    slow = Notebook(fail=lambda number: goes_on.wait(60) and None)  # type: ignore[func-returns-value]
    run = search(tracking=Tracking({"slow": slow}, warnings.append, patience_s=0.01))
    goes_on.set()
    assert run.n_finished == 4
    assert warnings == ["slow has not taken all trials in time. The same command writes the rest."]


def test_a_tracker_that_cannot_be_opened_ends_the_search_before_it_begins(
    search: Search, warnings: list[str]
) -> None:
    class Closed(Notebook):
        def open(self, run: TrackedRun) -> Set[int]:
            raise InputError("No such place.")

    with pytest.raises(InputError, match="No such place"):
        search(tracking=Tracking({"closed": Closed()}, warnings.append))
    assert search(1).n_finished == 1


def test_tracked_trial_holds_what_was_measured_and_nothing_else(search: Search) -> None:
    run = search()
    done, failed = (TrackedTrial.of(run, run.trials[n]) for n in (1, 2))
    measured = run.trials[1].measurement
    assert measured is not None
    assert done.metrics["size_bytes"] == measured.size_bytes
    assert done.metrics["accuracy"] == measured.accuracy
    assert run.baseline is not None
    assert run.baseline.measurement is not None
    ratio = run.baseline.measurement.size_bytes / measured.size_bytes
    assert done.metrics["compression"] == pytest.approx(ratio)
    assert not {"peak_memory_bytes", "divergence", "train_images_per_s"} & done.metrics.keys()
    assert (failed.state, failed.reason, failed.metrics) == ("failed", "export: no kernel", {})


def test_tracked_trial_names_the_levels_that_were_asked_for(search: Search) -> None:
    run = search()
    assert TrackedTrial.of(run, run.trials[0]).levels == {}
    for trial in run.trials:
        levels = TrackedTrial.of(run, trial).levels
        assert len(levels) == sum(level > 0 for level in trial.levels.values())
        for knob in run.knobs:
            if knob.name in levels:
                assert levels[knob.name] == knob.levels[trial.levels[knob.name]]


def test_tracked_run_has_another_key_for_another_study_only(search: Search) -> None:
    import dataclasses

    first, later = (TrackedRun.of(search(budget)) for budget in (2, 3))
    assert first == later
    run = search(3)
    other = dataclasses.replace(run, info={**run.info, "seed": 7})
    assert TrackedRun.of(other).key != first.key
    assert first.tags["objectives"] == "accuracy,size,latency"


def test_tracked_run_keeps_the_task_s_arguments_to_itself(search: Search) -> None:
    import dataclasses

    run = search(1)
    secret = dataclasses.replace(run, info={**run.info, "arguments": {"token": "s3cret"}})
    assert "s3cret" not in str(TrackedRun.of(secret))


def test_progress_is_that_of_the_trials_it_is_asked_for(search: Search) -> None:
    run = search()
    everything = progress_of(run, {t.number for t in run.trials})
    assert everything["n_failed"] == 1.0
    assert everything["hypervolume"] == pytest.approx(run.hypervolume(run.front()))
    assert progress_of(run, {0})["hypervolume"] == 0.0
    assert progress_of(run, {2}) == {"n_failed": 1.0}


def test_no_tracker_is_no_work(search: Search, warnings: list[Any]) -> None:
    n_threads = threading.active_count()
    assert search(tracking=Tracking({}, warnings.append)).n_finished == 4
    assert threading.active_count() == n_threads
