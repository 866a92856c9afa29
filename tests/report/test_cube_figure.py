from collections.abc import Callable

import pytest

from autocompress.report.cube_figure import cube_figure, has_two_costs
from autocompress.report.findings import measured
from autocompress.run_record import RunRecord

Factory = Callable[..., RunRecord]


def test_cube_figure_draws_every_trial_at_its_three_figures(make_run: Factory) -> None:
    run = make_run(20)
    traces = cube_figure(run).data
    drawn = {
        n: (x, y, z)
        for trace in traces
        for n, x, y, z in zip(trace.customdata, trace.x, trace.y, trace.z, strict=True)
    }
    assert drawn.keys() == {t.number for t in run.complete}
    for trial in run.complete:
        figures = measured(trial)
        assert drawn[trial.number] == pytest.approx(
            (figures.size_bytes / 1e3, figures.latency_ms, 100 * figures.accuracy)
        )
    front = next(trace for trace in traces if trace.name == "on the front")
    assert set(front.customdata) == {t.number for t in run.front() if t.role == "search"}


def test_cube_figure_leaves_texts_to_the_page_when_told(make_run: Factory) -> None:
    assert all(trace.hovertext is None for trace in cube_figure(make_run(5), has_texts=False).data)
    assert all(trace.hovertext for trace in cube_figure(make_run(5)).data)


def test_has_two_costs_needs_all_of_them(make_run: Factory) -> None:
    assert has_two_costs(make_run(2))
    assert not has_two_costs(make_run(2, objectives="accuracy,size"))


def test_cube_figure_says_why_it_is_empty(make_run: Factory) -> None:
    figure = cube_figure(make_run(2, objectives="accuracy,size"))
    assert "No finished trial has measured size and latency" in figure.layout.annotations[0].text
