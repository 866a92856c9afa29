import dataclasses
import pickle

import pytest

from autocompress.errors import InputError
from autocompress.measurement import Measurement
from autocompress.objective import OBJECTIVES, Limits, parse_objectives


def test_parse_objectives_keeps_the_order_given():
    assert [o.name for o in parse_objectives("latency, accuracy")] == ["latency", "accuracy"]
    assert parse_objectives(["accuracy", "size"]) == parse_objectives("accuracy,size")


def test_objectives_name_fields_of_a_measurement():
    assert {o.field for o in OBJECTIVES.values()} <= set(Measurement.__dataclass_fields__)
    assert OBJECTIVES["accuracy"].direction == "maximize"
    assert OBJECTIVES["size"].direction == OBJECTIVES["latency"].direction == "minimize"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("accuracy,sise", "Unknown objective 'sise'. Did you mean 'size'?"),
        ("", "Unknown objective ''."),
        ("accuracy,size,size", "named once, but got 'accuracy,size,size'"),
        ("size,latency", "must hold accuracy and a cost, but got 'size,latency'"),
        ("accuracy", "must hold accuracy and a cost, but got 'accuracy'"),
    ],
)
def test_parse_objectives_refuses_what_spans_no_front(names, message):
    with pytest.raises(InputError) as caught:
        parse_objectives(names)
    assert message in str(caught.value)


def _violations(limits, **figures):
    baseline = figures.pop("baseline_accuracy", 0.95)
    measured = {"accuracy": 0.9, "size_bytes": 100, "latency_ms": 1.0, **figures}
    return limits.violations(measured, baseline_accuracy=baseline)


def test_violations_are_figure_minus_limit_for_limits_that_are_set():
    limits = Limits(max_drop=0.01, max_size_bytes=80, max_latency_ms=1.5)
    missed = _violations(limits)
    assert missed == {
        "max_drop": pytest.approx(0.04),
        "max_size_bytes": 20,
        "max_latency_ms": -0.5,
    }
    assert _violations(Limits(max_size_bytes=100)) == {"max_size_bytes": 0}
    assert _violations(Limits()) == {}


@pytest.mark.parametrize("n_wrong", range(1, 30))
def test_violations_let_a_drop_of_exactly_the_limit_pass(n_wrong):
    limits = Limits(max_drop=n_wrong / 300)
    figures = {"baseline_accuracy": 290 / 300, "accuracy": (290 - n_wrong) / 300}
    assert _violations(limits, **figures)["max_drop"] <= 0
    assert _violations(limits, **{**figures, "accuracy": (289 - n_wrong) / 300})["max_drop"] > 0


def test_violations_count_an_unmeasured_latency_as_missed():
    assert _violations(Limits(max_latency_ms=3.0), latency_ms=None) == {"max_latency_ms": 3.0}


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_drop": 1.5}, "must lie in [0, 1], a share, but got 1.5. One point of accuracy"),
        ({"max_drop": -0.1}, "must lie in [0, 1], a share, but got -0.1"),
        ({"max_drop": float("nan")}, "but got nan"),
        ({"max_size_bytes": 0}, "must be at least 1 byte, but got 0"),
        ({"max_latency_ms": 0.0}, "must be > 0 ms, but got 0"),
        ({"max_latency_ms": float("inf")}, "must be > 0 ms, but got inf"),
    ],
)
def test_limits_refuse_what_nothing_or_everything_keeps(limits, message):
    with pytest.raises(InputError) as caught:
        Limits(**limits)
    assert message in str(caught.value)


def test_limits_to_json_holds_those_that_are_set():
    limits = Limits(max_drop=0.0, max_latency_ms=2.0)
    assert limits.to_json() == {"max_drop": 0.0, "max_latency_ms": 2.0}
    assert Limits(**limits.to_json()) == limits
    assert Limits().is_empty
    assert not limits.is_empty


def test_limits_refuse_a_name_that_no_objective_has():
    with pytest.raises(InputError, match="Unknown limit 'max_size'"):
        Limits(max_size=100)


def test_limits_are_equal_by_what_they_limit_and_survive_pickling():
    limits = Limits(max_latency_ms=2.0, max_drop=0.01, max_size_bytes=None)
    assert limits == Limits(max_drop=0.01, max_latency_ms=2.0) != Limits(max_drop=0.01)
    assert pickle.loads(pickle.dumps(limits)) == limits
    assert hash(pickle.loads(pickle.dumps(limits))) == hash(limits)
    assert list(limits.to_json()) == ["max_drop", "max_latency_ms"]
    assert limits.costs == {"latency_ms": 2.0}


def test_noise_names_fields_of_a_measurement():
    for noise in (row.noise for row in OBJECTIVES.values() if row.noise is not None):
        assert {*dataclasses.astuple(noise)} <= set(Measurement.__dataclass_fields__)


def test_ratios_of_costs_have_names_of_their_own():
    ratios = [row.ratio for row in OBJECTIVES.values() if row.ratio]
    assert len({*ratios, *Measurement.__dataclass_fields__}) == len(
        [*ratios, *Measurement.__dataclass_fields__]
    )
