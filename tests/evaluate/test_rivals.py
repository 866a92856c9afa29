from autocompress.evaluate.dominance import rivals_of
from autocompress.measurement import Fidelity
from autocompress.objective import Limits
from autocompress.run_record import RunRecord, TrialRecord
from tests.builders import make_measurement, make_run, make_trial


def trial(
    number: int,
    accuracy: float,
    size_bytes: int,
    untuned: float | None = None,
    *,
    fidelity: Fidelity = 1,
    latency_ms: float | None = None,
    state: str = "complete",
) -> TrialRecord:
    measurement = make_measurement(
        fidelity=fidelity,
        accuracy=accuracy,
        size_bytes=size_bytes,
        latency_ms=latency_ms,
        baseline_latency_ms=None if latency_ms is None else 2.0,
        untuned_divergence=untuned,
    )
    return make_trial(number, measurement if state == "complete" else None, state=state)


def run_of(
    *trials: TrialRecord, objectives: str = "accuracy,size", limits: Limits | None = None
) -> RunRecord:
    return make_run(*trials, objectives=objectives, limits=limits or Limits())


TRIALS = (
    trial(0, 0.9, 400),
    trial(1, 0.8, 200, 0.1),
    trial(2, 0.7, 300, 0.3),
    trial(3, 0.85, 350, 0.2, fidelity=0),
    trial(4, 0.0, 0, state="failed"),
    trial(5, 0.6, 100, 0.5),
    trial(6, 0.99, 10, 0.01),
)


def test_rivals_are_the_front_and_the_history_of_smaller_numbers() -> None:
    rivals = rivals_of(run_of(*TRIALS), 6)

    assert [(r.label, r.accuracy, r.size_bytes) for r in rivals.front] == [
        ("trial 0", 0.9, 400),
        ("trial 1", 0.8, 200),
        ("trial 5", 0.6, 100),
    ]
    assert rivals.history == ((0.1, 0.8), (0.3, 0.7), (0.5, 0.6))
    assert not rivals.has_latency


def test_rivals_of_a_trial_do_not_depend_on_what_finished_after_it() -> None:
    assert rivals_of(run_of(*TRIALS), 5) == rivals_of(run_of(*TRIALS[:5]), 5)
    assert rivals_of(run_of(*TRIALS), 6) != rivals_of(run_of(*TRIALS), 7)


def test_points_that_break_a_limit_are_rivals() -> None:
    limited = run_of(*TRIALS, limits=Limits(max_size_bytes=50))
    assert rivals_of(limited, 6).front == rivals_of(run_of(*TRIALS), 6).front


def test_latency_is_told_over_the_baselines_where_it_matters() -> None:
    trials = (trial(0, 0.9, 400, latency_ms=2.0), trial(1, 0.8, 200, latency_ms=0.5))
    rivals = rivals_of(run_of(*trials, objectives="accuracy,size,latency"), 2)
    assert rivals.has_latency
    assert [rival.latency_ratio for rival in rivals.front] == [1.0, 0.25]
    assert rivals_of(run_of(*trials, limits=Limits(max_latency_ms=1.0)), 2).has_latency
    assert not rivals_of(run_of(*trials), 2).has_latency
