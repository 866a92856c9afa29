import dataclasses
import json
import math

import pytest

from autocompress.errors import TrialError
from autocompress.measurement import Measurement

FIGURES = Measurement(
    fidelity=1,
    accuracy=0.9,
    loss=0.3,
    size_bytes=1000,
    latency_ms=2.0,
    latency_spread_ms=0.1,
    baseline_latency_ms=3.0,
    macs=10,
    n_params=5,
    seconds=1.5,
    skipped=("one",),
)


def test_measurement_survives_json():
    text = json.dumps(FIGURES.to_json(), allow_nan=False)
    assert Measurement.from_json(json.loads(text)) == FIGURES


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", ["accuracy", "loss", "latency_ms"])
def test_measurement_refuses_what_is_not_a_number(field, value):
    with pytest.raises(TrialError, match=f"`{field}` was measured as {value}") as caught:
        dataclasses.replace(FIGURES, **{field: value})
    assert caught.value.reason == "nonfinite_measurement"


def test_speedup_is_baseline_over_candidate():
    assert FIGURES.speedup == 1.5


@pytest.mark.parametrize("field", ["latency_ms", "baseline_latency_ms"])
def test_speedup_is_none_when_a_time_is_missing(field):
    assert dataclasses.replace(FIGURES, **{field: None}).speedup is None
