import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from autocompress.report.compare import compare_runs
from autocompress.report.compare_figure import fronts_figure
from autocompress.run_record import RunRecord

Make = Callable[..., RunRecord]


def test_fronts_figure_draws_a_rising_line_per_run_told_apart_without_colour(
    make_run: Make,
) -> None:
    runs = [dataclasses.replace(make_run(seed=s), folder=Path(str(s)), name=str(s)) for s in (0, 1)]
    figure = fronts_figure(compare_runs(runs), "size")
    assert [trace.name for trace in figure.data] == ["0", "1"]
    assert len({(t.marker.symbol, t.line.dash, t.line.color) for t in figure.data}) == 2
    for trace, run in zip(figure.data, runs, strict=True):
        assert list(trace.x) == sorted(trace.x)
        assert list(trace.y) == sorted(trace.y)
        assert min(trace.x) == min(t.measurement.size_bytes for t in run.feasible) / 1e3
    assert "[kB]" in figure.layout.xaxis.title.text


def test_fronts_figure_draws_latency_as_a_ratio_to_each_runs_own_baseline(make_run: Make) -> None:
    run = make_run()
    slow = dataclasses.replace(run, folder=Path("slow"), name="slow")
    slow = dataclasses.replace(
        slow,
        trials=tuple(
            t
            if t.measurement is None
            else dataclasses.replace(
                t,
                measurement=dataclasses.replace(
                    t.measurement,
                    latency_ms=t.measurement.latency_ms * 2,
                    baseline_latency_ms=t.measurement.baseline_latency_ms * 2,
                ),
            )
            for t in run.trials
        ),
    )
    figure = fronts_figure(compare_runs([run, slow]), "latency")
    assert list(figure.data[0].x) == pytest.approx(list(figure.data[1].x))
    assert "Within 1 pt no run's point is measurably faster" in figure.layout.title.text


def test_fronts_figure_title_states_who_is_ahead_and_escapes_the_name(make_run: Make) -> None:
    run = make_run()
    named = dataclasses.replace(run, name="<b>", folder=Path("b"))
    plain = tuple(t for t in run.trials if t.label in ("baseline", "uniform 8 bit"))
    worse = dataclasses.replace(run, name="worse", trials=plain)
    title = fronts_figure(compare_runs([named, worse]), "size").layout.title.text
    assert "Within 1 pt the point of &lt;b&gt; is" in title
    assert "smaller than the next run's" in title
