import dataclasses
import math

import numpy as np
import pytest

from autocompress.accuracy_scale import accuracy_scale
from autocompress.objective import Limits
from tests.builders import make_measurement, make_run, make_trial


def _trial(
    number,
    accuracy=None,
    size_bytes=100,
    *,
    role="search",
    latency_ms=None,
    fidelity=1,
    divergence=None,
    state="failed",
):
    measurement = None
    if accuracy is not None:
        measurement = make_measurement(
            fidelity=fidelity,
            accuracy=accuracy,
            size_bytes=size_bytes,
            latency_ms=latency_ms,
            divergence=divergence,
        )
    state = state if measurement is None else "complete"
    return make_trial(number, measurement, role=role, state=state)


def _run(*trials, objectives="accuracy,size", fidelity=1, **limits):
    return make_run(*trials, objectives=objectives, fidelity=fidelity, limits=Limits(**limits))


def test_front_holds_what_nobody_beats_most_accurate_first():
    run = _run(
        _trial(0, 0.9, 400, role="baseline"), _trial(1, 0.5, 100), _trial(2, 0.8, 200),
        _trial(3, 0.7, 300), _trial(4),
    )  # fmt: skip
    assert [t.number for t in run.front()] == [0, 2, 1]


def test_front_keeps_the_first_of_equal_trials():
    run = _run(_trial(0, 0.9, 400), _trial(1, 0.9, 400), _trial(2, 0.8, 200))
    assert [t.number for t in run.front()] == [0, 2]


@pytest.mark.parametrize(
    ("divergences", "kept"),
    [
        ((0.3, 0.1, 0.2), 2),
        ((0.1, 0.1, None), 1),
        ((None, None, 0.5), 3),
        ((None, None, None), 1),
    ],
)
def test_front_keeps_the_equal_trial_that_diverges_least_then_the_first(divergences, kept):
    equal = [_trial(i + 1, 0.8, 200, divergence=d) for i, d in enumerate(divergences)]
    run = _run(_trial(0, 0.9, 400), *equal, _trial(4, 0.8, 300, divergence=0.0))
    assert [t.number for t in run.front()] == [0, kept]


def test_front_of_a_run_without_training_holds_what_was_not_trained():
    trials = (
        _trial(0, 0.9, 400, role="baseline", fidelity=0),
        _trial(1, 0.8, 200, fidelity=0),
        _trial(2, 0.99, 1, fidelity=1),
    )
    run = _run(*trials, fidelity=0)
    assert [t.number for t in run.front()] == [0, 1]
    assert run.comparable == trials[:2]


LIMITED = (
    _trial(0, 0.9, 400, role="baseline", latency_ms=2.0),
    _trial(1, 0.9, 300, latency_ms=2.5),
    _trial(2, 0.89, 200, latency_ms=1.0),
    _trial(3, 0.85, 100, latency_ms=1.0),
)


@pytest.mark.parametrize(
    ("limits", "front"),
    [
        ({}, [1, 0, 2, 3]),
        ({"max_drop": 0.01}, [1, 0, 2]),
        ({"max_size_bytes": 200}, [2, 3]),
        ({"max_latency_ms": 1.5}, [2, 3]),
        ({"max_drop": 0.01, "max_size_bytes": 200}, [2]),
        ({"max_drop": 0.0, "max_size_bytes": 300}, [1]),
        ({"max_drop": 0.0, "max_size_bytes": 299}, []),
    ],
)
def test_front_holds_only_what_keeps_every_limit(limits, front):
    run = _run(*LIMITED, objectives="accuracy,size,latency", **limits)
    assert [t.number for t in run.front()] == front
    assert {t.number for t in run.feasible} >= set(front)
    knee = run.knee()
    assert (knee is None) == (not front)
    assert knee is None or knee.number in front
    assert run.baseline is run.trials[0]


def test_a_limit_works_on_what_is_no_objective():
    run = _run(*LIMITED, objectives="accuracy,size", max_latency_ms=2.2)
    assert not run.is_feasible(run.trials[1])
    assert run.violations(run.trials[1]) == {"max_latency_ms": pytest.approx(0.3)}
    assert run.violations(run.trials[2]) == {}


def test_what_was_not_measured_is_not_feasible():
    run = _run(LIMITED[0], _trial(1), max_drop=0.5)
    assert not run.is_feasible(run.trials[1])
    assert run.violations(run.trials[1]) == {}


def test_drop_is_counted_from_one_while_there_is_no_baseline():
    run = _run(_trial(0, 0.9, 100), max_drop=0.05)
    assert run.violations(run.trials[0]) == {"max_drop": pytest.approx(0.05)}


def test_nearest_miss_has_the_smallest_sum_of_relative_excesses():
    run = _run(*LIMITED, max_drop=0.0, max_size_bytes=150)
    # 1: 150 of 150 bytes too large; 2: 0.01 of 0.9 and 50 of 150; 3: 0.05 of 0.9
    assert run.nearest_miss() is run.trials[3]
    assert _run(*LIMITED, max_drop=0.0, max_size_bytes=299).nearest_miss() is run.trials[1]


def test_nearest_miss_is_none_when_something_besides_the_baseline_keeps_the_limits():
    assert _run(*LIMITED).nearest_miss() is None
    assert _run(*LIMITED, max_drop=0.01).nearest_miss() is None
    assert _run(LIMITED[0], max_size_bytes=1).nearest_miss() is None
    assert _run(LIMITED[0], LIMITED[3], max_drop=0.01).nearest_miss() is LIMITED[3]


def test_n_finished_counts_failed_and_stopped_trials():
    run = _run(_trial(0, 0.9), _trial(1), _trial(2, state="stopped"), _trial(3, state="running"))
    assert run.n_finished == 3


def test_hypervolume_of_half_the_size_at_the_baselines_accuracy_is_one():
    run = _run(_trial(0, 0.8, 400, role="baseline"), _trial(1, 0.8, 200), _trial(2, 0.8, 100))
    assert run.hypervolume(run.trials[1:2]) == 1.0
    assert run.hypervolume(run.trials[2:]) == 2.0


@pytest.mark.parametrize("objectives", ["accuracy,size", "accuracy,size,latency"])
def test_hypervolume_of_the_baseline_and_of_nothing_is_zero(objectives):
    run = _run(
        _trial(0, 0.8, 400, role="baseline", latency_ms=2.0),
        _trial(1, 0.8, 400, latency_ms=2.0),
        objectives=objectives,
    )
    assert run.hypervolume(run.trials[:1]) == 0.0
    assert run.running_hypervolume(run.trials) == [0.0, 0.0]
    assert run.hypervolume(()) == 0.0
    assert run.running_hypervolume(()) == []


def _worth(points_lost: float) -> float:
    """By hand: the logarithm of what is lost plus a quarter of a point, 4 points are worth 0."""
    return 1.0 - math.log2(points_lost / 0.25 + 1.0) / math.log2(17.0)


def test_hypervolume_with_one_cost_is_the_mean_number_of_halvings():
    run = _run(
        _trial(0, 0.8, 400, role="baseline"),
        _trial(1, 0.7975, 100),  # two halvings at a quarter of a point: one of 4.09 octaves is gone
        _trial(2, 0.7825, 50),  # a third one at 1.75 points: three octaves are gone
        _trial(3, 0.79, 500),  # larger than the baseline
        _trial(4, 0.75, 10),  # loses more than 4 points
        _trial(5, 0.84, 200),  # one halving; better than the baseline is not worth more
    )
    assert _worth(0.25) == pytest.approx(1 - 1 / math.log2(17.0))
    after_1, after_2 = 2.0 * _worth(0.25), 2.0 * _worth(0.25) + _worth(1.75)
    volumes = [0.0, after_1, after_2, after_2, after_2, after_2 + 1.0 - _worth(0.25)]
    assert run.running_hypervolume(run.trials) == pytest.approx(volumes)
    assert run.hypervolume(run.trials[2:3]) == pytest.approx(3.0 * _worth(1.75))


def test_hypervolume_is_finite_where_the_baseline_scores_zero():
    run = _run(_trial(0, 0.0, 400, role="baseline"), _trial(1, 0.0, 200), _trial(2, 0.5, 100))
    assert run.running_hypervolume(run.trials) == pytest.approx([0.0, 1.0, 2.0])


@pytest.mark.parametrize(
    ("metric", "baseline", "unit"),
    [
        ("top-1 accuracy", 0.99, 0.0025),
        ("accuracy", 0.3, 0.0025),
        ("mIoU", 0.6, 0.0025),
        ("R squared", 0.992, 0.00025),  # what lacks to 1, over 32
    ],
)
def test_what_counts_of_a_metric_is_a_quarter_of_a_point_or_less(metric, baseline, unit):
    scale = accuracy_scale(baseline, metric)
    assert scale.unit == pytest.approx(unit)
    assert scale.floor == pytest.approx(baseline - 16 * unit)


def test_a_wide_limit_widens_what_counts():
    assert accuracy_scale(0.9, max_drop=0.1).floor == pytest.approx(0.8)
    assert accuracy_scale(0.9, max_drop=0.01).floor == pytest.approx(0.86)


def test_knee_loses_no_more_than_what_is_worth_something():
    """A point that is much smaller and loses 5 points is no best trade-off."""
    run = _run(_trial(0, 0.9, 400, role="baseline"), _trial(1, 0.898, 100), _trial(2, 0.85, 10))
    assert run.knee() is run.trials[1]


def test_hypervolume_with_two_costs_counts_what_is_no_faster_than_the_baseline():
    base = _trial(0, 0.8, 400, role="baseline", latency_ms=2.0)
    points = (
        _trial(1, 0.8, 100, latency_ms=2.0),  # weights only: exactly as fast
        _trial(2, 0.79, 200, latency_ms=1.0),
        _trial(3, 0.8, 100, latency_ms=3.0),
        _trial(4, 0.8, 10, latency_ms=4.0),  # one halving in the wrong direction is all there is
    )
    run = _run(base, *points, objectives="accuracy,size,latency")
    # Boxes of accuracy x size x latency up to twice the baseline's costs, less its own of 1 x 1 x 1
    slower = 2.0 - np.log2(3.0)
    half = _worth(1.0)
    assert run.hypervolume(points[:1]) == pytest.approx(1 * 3 * 1 - 1)
    assert run.hypervolume(points[1:2]) == pytest.approx(half * 2 * 2 - half * 1 * 1)
    assert run.hypervolume(points[2:3]) == pytest.approx(1 * 3 * slower - 1 * 1 * slower)
    assert run.hypervolume(points[3:]) == 0.0
    added = half * (2 * 2 - 2 * 1)
    assert run.running_hypervolume(points) == pytest.approx([2.0] + [2.0 + added] * 3)


def test_hypervolume_of_half_the_size_is_one_with_two_costs_as_well():
    base = _trial(0, 0.8, 400, role="baseline", latency_ms=2.0)
    half = _trial(1, 0.8, 200, latency_ms=2.0)
    run = _run(base, half, objectives="accuracy,size,latency")
    assert run.hypervolume((half,)) == 1.0


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


def test_knee_loses_at_most_five_percent_and_counts_costs_in_logarithms():
    run = _run(
        _trial(0, 0.9, 1000, role="baseline"),
        *(_trial(1, 0.89, 400), _trial(2, 0.88, 50), _trial(3, 0.49, 9), _trial(4, 0.5, 10)),
    )
    assert run.knee() is run.trials[2]  # on raw axes, without a floor, it is trial 4
    limited = dataclasses.replace(run, limits=Limits(max_size_bytes=20))
    assert limited.knee() is run.trials[4]  # nothing keeps both: the most accurate one


def test_knee_is_on_the_front():
    run = _run(_trial(0, 0.9, 1000), _trial(1, 0.89, 100), _trial(2, 0.1, 90), _trial(3, 0.5, 500))
    assert run.knee() is run.trials[1]
