from pathlib import Path

import numpy as np
import pytest

from autocompress.measurement import Measurement
from autocompress.objective import parse_objectives
from autocompress.plan import CompressionPlan
from autocompress.run_record import RunRecord, TrialRecord


def _trial(number, accuracy=None, size_bytes=100, *, role="search", latency_ms=None, fidelity=1):
    measurement = None
    if accuracy is not None:
        measurement = Measurement(
            fidelity=fidelity,
            accuracy=accuracy,
            loss=0.0,
            size_bytes=size_bytes,
            latency_ms=latency_ms,
            latency_spread_ms=None,
            baseline_latency_ms=None,
            macs=1,
            n_params=1,
            seconds=1.0,
        )
    return TrialRecord(
        number=number,
        role=role,
        label=f"trial {number}",
        state="failed" if measurement is None else "complete",
        levels={},
        plan=CompressionPlan(),
        measurement=measurement,
        reason=None,
    )


def _run(*trials, objectives="accuracy,size"):
    return RunRecord(
        name="run",
        folder=Path("run"),
        objectives=parse_objectives(objectives),
        knobs=(),
        trials=trials,
        info={},
    )


def test_front_holds_what_nobody_beats_most_accurate_first():
    run = _run(
        _trial(0, 0.9, 400, role="baseline"), _trial(1, 0.5, 100), _trial(2, 0.8, 200),
        _trial(3, 0.7, 300), _trial(4),
    )  # fmt: skip
    assert [t.number for t in run.front()] == [0, 2, 1]


def test_front_keeps_the_first_of_equal_trials():
    run = _run(_trial(0, 0.9, 400), _trial(1, 0.9, 400), _trial(2, 0.8, 200))
    assert [t.number for t in run.front()] == [0, 2]


def test_front_never_compares_fidelities():
    run = _run(_trial(0, 0.9, 400), _trial(1, 0.99, 1, fidelity=2), _trial(2, 0.99, 1, fidelity=0))
    assert [t.number for t in run.front()] == [0]


def test_complete_leaves_out_trials_without_an_objective():
    run = _run(_trial(0, 0.9, latency_ms=1.0), _trial(1, 0.8), objectives="accuracy,latency")
    assert [t.number for t in run.complete] == [0]


def test_costs_turn_accuracy_around():
    run = _run(_trial(0, 0.9, 400))
    np.testing.assert_array_equal(run.costs(run.complete), [[-0.9, 400.0]])
    assert run.costs(()).shape == (0, 2)


def test_baseline_and_controls_are_found_by_role():
    run = _run(_trial(0, 0.9, role="baseline"), _trial(1, 0.8, role="control"), _trial(2, 0.7))
    assert run.baseline is run.trials[0]
    assert run.controls == (run.trials[1],)


@pytest.mark.parametrize("trials", [(), (_trial(0),)])
def test_run_without_measurements_has_no_front_and_no_knee(trials):
    run = _run(*trials)
    assert run.front() == ()
    assert run.knee() is None
    assert run.baseline is None


def test_knee_is_on_the_front():
    run = _run(_trial(0, 0.9, 1000), _trial(1, 0.89, 100), _trial(2, 0.1, 90), _trial(3, 0.5, 500))
    assert run.knee() is run.trials[1]
