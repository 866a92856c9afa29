"""The search is credited only with what lies below the curve of one rate penalty."""

import math

import pytest

from autocompress.objective import SIZE
from autocompress.plan import CompressionPlan, LayerPlan
from autocompress.report.findings import compare_with_controls, penalty_curve
from autocompress.report.front_figure import front_figure
from autocompress.report.page_summary import _comparison_sentence
from autocompress.report.search_gain import search_gain
from tests.builders import make_measurement, make_run, make_trial


def _control(number, price, accuracy, size_bytes):
    plan = CompressionPlan(layers={"conv": LayerPlan(weight_bits=8, rate_price=price)})
    measurement = make_measurement(accuracy=accuracy, size_bytes=size_bytes)
    label = f"rate penalty {price:g}"
    return make_trial(number, role="control", label=label, plan=plan, measurement=measurement)


def _run(size_bytes):
    return make_run(
        make_trial(0, role="baseline", measurement=make_measurement(accuracy=0.9, size_bytes=1000)),
        _control(1, 0.01, 0.8975, 400),
        _control(2, 0.1, 0.8825, 100),
        make_trial(3, measurement=make_measurement(accuracy=0.89, size_bytes=size_bytes)),
    )


def test_curve_holds_the_controls_that_differ_in_one_penalty_only():
    assert [t.number for t in penalty_curve(_run(300))] == [1, 2]


def test_a_point_on_the_curve_is_no_merit_of_the_search():
    """Between 0.25 and 1.75 points lost: log2 of 0.5, 1.25 and 2 points, in their logarithm."""
    share = math.log2(1.25 / 0.5) / math.log2(2.0 / 0.5)
    on_curve = 400.0 ** (1 - share) * 100.0**share
    found = compare_with_controls(_run(300), SIZE)
    assert found.curve_cost == pytest.approx(on_curve)
    assert on_curve == pytest.approx(160.0)
    assert found.verdict == "worse"
    assert found.ratio == pytest.approx(on_curve / 300)
    assert compare_with_controls(_run(150), SIZE).verdict == "better"
    gain = search_gain(_run(150))
    within_a_point = next(row for row in gain.at_drops if row.max_drop == 0.01)
    assert within_a_point.ratio.values == (pytest.approx(on_curve / 150),)


def test_report_says_so_and_draws_the_curve():
    text = _comparison_sentence(_run(300), SIZE)
    assert "did not beat the controls" in text
    assert "the curve of one rate penalty (160 B between its measured points)" in text
    names = [trace.name for trace in front_figure(_run(300), "size").data]
    assert "one rate penalty, no search" in names
