import dataclasses
import re
from collections.abc import Callable
from typing import Any

import pytest

from autocompress.report.findings import measured
from autocompress.report.front_figure import front_figure
from autocompress.run_record import RunRecord

Factory = Callable[..., RunRecord]


def trace(figure: Any, name: str) -> Any:
    return next(t for t in figure.data if t.name and t.name.startswith(name))


def test_front_figure_draws_every_measured_trial_once_and_no_failed_one(make_run: Factory) -> None:
    run = make_run(30, n_failed=5)
    figure = front_figure(run, "size")
    names = ("dominated", "on the front", "control (", "control without", "baseline")
    assert sum(len(trace(figure, name).x) for name in names) == len(run.complete)


def test_front_figure_line_is_the_two_dimensional_front(make_run: Factory) -> None:
    run = make_run(30, objectives="accuracy,size")
    line = trace(front_figure(run, "size"), "best accuracy")
    front = sorted((measured(t).size_bytes / 1e3, 100 * measured(t).accuracy) for t in run.front())
    assert list(line.x) == pytest.approx([size for size, _ in front])
    assert list(line.y) == pytest.approx([accuracy for _, accuracy in front])
    assert line.line.shape == "hv"


def test_front_figure_title_states_the_finding(make_run: Factory) -> None:
    figure = front_figure(make_run(0), "size")
    assert re.search("7.5× smaller at −[01][.][0-9] pt", figure.layout.title.text)


def test_front_figure_says_why_it_is_empty_when_latency_was_not_measured(make_run: Factory) -> None:
    figure = front_figure(make_run(3, objectives="accuracy,size"), "latency")
    assert "No finished trial has a measured latency" in figure.layout.annotations[0].text


def test_front_figure_escapes_names(make_run: Factory) -> None:
    run = make_run(4, label="<b>{}</b>", layers=("<i>a</i>", "b", "c", "<u>d</u>"))
    text = "".join(h for t in front_figure(run, "size").data for h in t.hovertext or ())
    assert "&lt;b&gt;" in text
    assert "<i>" not in text
    assert "<u>" not in text


def test_front_figure_uses_a_log_axis_only_when_the_range_asks_for_it(make_run: Factory) -> None:
    run = make_run(10)
    assert front_figure(run, "size").layout.xaxis.type == "log"
    assert front_figure(run, "latency").layout.xaxis.type is None


def test_front_figure_writes_numbers_beside_its_unit_without_prefixes(make_run: Factory) -> None:
    assert front_figure(make_run(10), "latency").layout.xaxis.exponentformat == "none"


def test_front_figure_starts_near_the_baseline_and_counts_what_is_out_of_view(
    make_run: Factory,
) -> None:
    run = make_run(30)
    sunk = {8, 9, 10}
    trials = tuple(
        dataclasses.replace(t, measurement=dataclasses.replace(measured(t), accuracy=0.1))
        if t.number in sunk
        else t
        for t in run.trials
    )
    figure = front_figure(dataclasses.replace(run, trials=trials), "size")
    assert "3 trials below 82 %" in figure.layout.title.subtitle.text
    assert figure.layout.yaxis.range[0] == pytest.approx(81.73)


def test_front_figure_draws_controls_below_its_view_without_their_names(make_run: Factory) -> None:
    run = make_run(30)
    sunk = next(t for t in run.controls if t.label == "uniform 2 bit")
    trials = tuple(
        dataclasses.replace(t, measurement=dataclasses.replace(measured(t), accuracy=0.1))
        if t is sunk
        else t
        for t in run.trials
    )
    figure = front_figure(dataclasses.replace(run, trials=trials), "size")
    assert "1 trial below 82 %" in figure.layout.title.subtitle.text
    drawn = trace(figure, "control (")
    place = drawn.customdata.index(sunk.number)
    assert drawn.y[place] == pytest.approx(10.0)
    assert drawn.text[place] == ""


def test_front_figure_marks_untuned_controls_apart(make_run: Factory) -> None:
    untuned = trace(front_figure(make_run(4), "latency"), "control without")
    assert set(untuned.marker.symbol) == {"x-thin"}
    assert "int8 post-training" in untuned.hovertext[0]


@pytest.mark.parametrize("n_search", [0, 5, 120])
def test_front_figure_draws_any_number_of_points(make_run: Factory, n_search: int) -> None:
    assert front_figure(make_run(n_search), "size").data


def test_front_figure_draws_what_was_trained_longer_beside_its_trial(
    make_run: Factory, train_longer: Callable[[RunRecord], RunRecord]
) -> None:
    run = train_longer(make_run(10))
    figure = front_figure(run, "size")
    stars = trace(figure, "refined")
    assert set(stars.customdata) == {t.number for t in run.refined}
    assert stars.marker.symbol == "star"
    assert all(", refined" in text for text in stars.hovertext)
    assert set(trace(figure, "trained longer").customdata) == {t.number for t in run.validated}
    way = next(t for t in figure.data if t.mode == "lines" and t.line.dash == "dot")
    first = run.refined[0].number
    proxy = next(t for t in run.trials if t.number == first)
    assert way.x[0] == pytest.approx(measured(proxy).size_bytes / 1e3)
    assert way.y[1] == pytest.approx(100 * measured(run.refined[0]).accuracy)


def test_front_figure_leaves_texts_to_the_page_when_told(make_run: Factory) -> None:
    figure = front_figure(make_run(10), "size", has_texts=False)
    drawn = [t for t in figure.data if t.meta == "trials"]
    assert drawn
    assert all(t.hovertext is None for t in drawn)
    assert trace(front_figure(make_run(10), "size"), "on the front").hovertext
