import dataclasses
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.plan import CompressionPlan, LayerPlan
from autocompress.run_record import TrialRecord
from autocompress.runs.validate.retrain import spread_sample, validatable
from tests.builders import make_measurement, make_run, make_trial


def trial(
    number: int, accuracy: float, divergence: float | None = None, **changes: Any
) -> TrialRecord:
    measurement = make_measurement(
        fidelity=changes.pop("fidelity", 1),
        accuracy=accuracy,
        size_bytes=1000 - number,
        divergence=divergence,
    )
    plan = CompressionPlan(layers={"fc": LayerPlan(weight_bits=4)})
    return make_trial(number, measurement, **{"role": "search", "plan": plan, **changes})


def numbers(trials: tuple[TrialRecord, ...]) -> list[int]:
    return [t.number for t in trials]


def test_spread_sample_takes_evenly_spaced_places_whatever_the_order_of_trials() -> None:
    trials = [trial(i, i / 100) for i in range(21)]
    assert numbers(spread_sample(trials, 5)) == [0, 5, 10, 15, 20]
    assert numbers(spread_sample(trials[::-1], 5)) == [0, 5, 10, 15, 20]


def test_spread_sample_orders_equal_accuracies_by_divergence() -> None:
    trials = [trial(i, 0.9, divergence=(7 * i % 11) / 10) for i in range(11)]
    best_first = sorted(trials, key=lambda t: t.measurement.divergence)
    expected = sorted(best_first[place].number for place in (0, 5, 10))
    assert numbers(spread_sample(trials, 3)) == expected


def test_spread_sample_holds_extremes_and_the_front() -> None:
    trials = [trial(i, i / 100) for i in range(40)]
    sample = numbers(spread_sample(trials, 10, front={33, 35, 36, 38}))
    assert {0, 39, 33, 35, 36, 38} <= set(sample)
    assert len(sample) == 10
    rest = [n for n in sample if n <= 33]
    assert max(b - a for a, b in itertools.pairwise(rest)) <= 7  # 33 places in 5 steps


def test_spread_sample_stays_spread_when_the_front_is_large() -> None:
    trials = [trial(i, i / 100) for i in range(60)]
    sample = numbers(spread_sample(trials, 12, front=set(range(30, 60))))
    assert len(sample) == 12
    assert sum(n < 30 for n in sample) >= 4


@given(
    accuracies=st.lists(st.integers(0, 9), min_size=1, max_size=40),
    n=st.integers(3, 45),
    data=st.data(),
)
def test_spread_sample_has_the_size_asked_for_and_no_trial_twice(
    accuracies: list[int], n: int, data: st.DataObject
) -> None:
    trials = [trial(i, a / 9) for i, a in enumerate(accuracies)]
    front = data.draw(st.sets(st.sampled_from(range(len(trials)))))
    sample = spread_sample(trials, n, front=front)
    assert len(sample) == min(n, len(trials))
    assert numbers(sample) == sorted(set(numbers(sample)))
    found = {t.measurement.accuracy for t in sample if t.measurement}
    assert {max(accuracies) / 9, min(accuracies) / 9} <= found
    assert spread_sample(list(reversed(trials)), n, front=front) == sample


@pytest.mark.parametrize(("fidelity", "expected"), [(1, [1, 2]), (0, [5])])
def test_validatable_are_the_trials_the_proxy_judged(fidelity: Any, expected: list[int]) -> None:
    failed = dataclasses.replace(trial(3, 0.9), state="failed", measurement=None, reason="oom")
    run = make_run(
        trial(0, 0.95, role="baseline", plan=CompressionPlan()),
        trial(1, 0.94, role="control"),
        trial(2, 0.93),
        failed,
        trial(4, 0.95, plan=CompressionPlan(layers={"fc": LayerPlan()})),
        trial(5, 0.92, fidelity=0, role="control"),
        fidelity=fidelity,
    )
    assert numbers(validatable(run)) == expected
