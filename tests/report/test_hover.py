import dataclasses
from collections.abc import Callable

from autocompress.report.findings import measured
from autocompress.report.hover import hover_figures
from autocompress.run_record import RunRecord

Factory = Callable[..., RunRecord]


def test_hover_of_the_baseline_is_not_compared_with_itself(make_run: Factory) -> None:
    run = make_run(2)
    assert run.baseline is not None
    figures = dataclasses.replace(
        measured(run.baseline), latency_ms=0.044, latency_low_ms=0.045, latency_high_ms=0.0453
    )
    baseline = dataclasses.replace(run.baseline, measurement=figures)
    timed = dataclasses.replace(run, trials=(baseline, *run.trials[1:]))
    assert hover_figures(timed, baseline).split("<br>")[1:4] == [
        "accuracy 91.73 %",
        "size 1.08 MB",
        "latency 0.0440 ms (95 %: 0.0450 to 0.0453, timed again)",
    ]


def test_hover_of_a_trial_compares_it_with_the_baseline(make_run: Factory) -> None:
    run = make_run(2)
    trial = next(t for t in run.complete if t.label == "uniform 4 bit")
    lines = hover_figures(run, trial).split("<br>")
    assert lines[1].endswith(" pt)")
    assert lines[2].endswith("× smaller")
    assert "the same speed as the baseline within the noise" in lines[3]


def test_hover_shows_a_latency_of_less_than_a_microsecond(make_run: Factory) -> None:
    run = make_run(2)
    trial = run.complete[-1]
    figures = dataclasses.replace(measured(trial), latency_ms=0.0004, latency_spread_ms=0.00001)
    tiny = dataclasses.replace(trial, measurement=figures)
    assert "latency 0.000400 ms (spread 0.0000100)" in hover_figures(run, tiny)
