"""What a run with limits, stopped trials or no training says of itself, in words and pictures."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from autocompress.objective import OBJECTIVES, Limits
from autocompress.report import findings, tables
from autocompress.report.front_figure import front_figure
from autocompress.report.hover import hover_text
from autocompress.report.page import render_page
from autocompress.report.page_frame import page_script
from autocompress.report.page_summary import sentences, tiles
from autocompress.report.pictures import run_figures
from autocompress.report.wording import limits_text, nothing_feasible, violation_words
from autocompress.run_record import RunRecord

Factory = Callable[..., RunRecord]
TIGHT = Limits(max_drop=0.03, max_size_bytes=300_000)
IMPOSSIBLE = Limits(max_size_bytes=100)


def limited(run: RunRecord, limits: Limits) -> RunRecord:
    return dataclasses.replace(run, limits=limits)


def with_stopped(run: RunRecord, number: int, reason: str) -> RunRecord:
    trial = dataclasses.replace(
        run.trials[number], state="stopped", measurement=None, reason=reason
    )
    return dataclasses.replace(run, trials=(*run.trials[:number], trial, *run.trials[number + 1 :]))


def untrained(run: RunRecord) -> RunRecord:
    trials = tuple(
        dataclasses.replace(t, measurement=dataclasses.replace(t.measurement, fidelity=0))
        if t.measurement
        else t
        for t in run.trials
    )
    return dataclasses.replace(run, trials=trials, fidelity=0)


def trace_of(figure: Any, name: str) -> Any:
    return next(t for t in figure.data if t.name and t.name.startswith(name))


def test_limits_text_names_those_that_are_set() -> None:
    limits = Limits(max_drop=0.015, max_size_bytes=1500, max_latency_ms=0.25)
    assert limits_text(limits) == (
        "at most 1.5 pt of accuracy lost, at most 1.5 kB, at most 0.25 ms"
    )
    assert limits_text(Limits()) == ""


def test_violation_words_say_by_how_much(make_run: Factory) -> None:
    run = limited(make_run(0), Limits(max_drop=0.0, max_size_bytes=1_000_000, max_latency_ms=0.5))
    assert violation_words(run, run.trials[0]) == ["79.0 kB too large", "0.25 ms too slow"]
    smallest = next(t for t in run.trials if t.label == "uniform 2 bit")
    (accuracy, *_) = violation_words(run, smallest)
    assert accuracy.endswith(" pt too inaccurate")
    assert violation_words(make_run(0), run.trials[0]) == []


def test_nothing_feasible_names_the_nearest_miss_and_its_figures(make_run: Factory) -> None:
    run = limited(make_run(20), IMPOSSIBLE)
    nearest = min(
        (t for t in run.comparable if t.role != "baseline"),
        key=lambda t: t.measurement.size_bytes if t.measurement else 0,
    )
    line = nothing_feasible(run)
    assert "keeps the limits (at most 100 B)" in line
    assert f"nearest miss is {nearest.label} (" in line
    assert line.endswith("kB too large.")
    assert nothing_feasible(limited(run, TIGHT)) == ""
    assert nothing_feasible(limited(make_run(0, with_controls=False), IMPOSSIBLE)) == ""


def test_findings_never_present_a_point_that_breaks_a_limit(make_run: Factory) -> None:
    free = make_run(40, seed=3)
    cost = OBJECTIVES["size"]
    shown = findings.cheapest_within(free, free.feasible, cost)
    assert shown is not None
    assert shown.measurement is not None
    run = limited(free, Limits(max_latency_ms=(shown.measurement.latency_ms or 0) - 0.001))

    other = findings.cheapest_within(run, run.feasible, cost)
    assert other != shown
    assert findings.headline(run, cost) != findings.headline(free, cost)
    found = findings.compare_with_controls(run, cost)
    assert all(run.is_feasible(t) for t in (found.search, found.control) if t)
    assert all(run.is_feasible(t) for t in findings.tuned_controls(run))
    impossible = limited(free, IMPOSSIBLE)
    assert findings.headline(impossible, cost) == "No compressed point keeps the limits"
    assert findings.dominated_controls(impossible) == ()


def test_the_baseline_stays_in_sight_where_a_limit_keeps_it_off_the_front(
    make_run: Factory,
) -> None:
    run = make_run(20)
    assert findings.front_with_baseline(run) == run.front()
    tight = limited(run, TIGHT)
    assert findings.front_with_baseline(tight) == (run.baseline, *tight.front())
    assert tight.baseline not in tight.front()


def test_tables_say_what_is_feasible_and_what_diverges(make_run: Factory) -> None:
    run = limited(make_run(6, n_failed=1), Limits(max_size_bytes=500_000))
    measured = dataclasses.replace(
        findings.measured(run.trials[3]), divergence=0.25, untuned_divergence=1.5
    )
    trials = tuple(
        dataclasses.replace(t, measurement=measured) if t.number == 3 else t for t in run.trials
    )
    run = dataclasses.replace(run, trials=trials)
    frame = tables.trials_table(run).set_index("trial")

    assert not frame.loc[0, "feasible"]
    assert not frame.loc[0, "on_front"]
    assert frame.loc[0, "violations"] == "max_size_bytes +579000"
    assert frame.loc[3, "feasible"]
    assert frame.loc[3, "violations"] == ""
    assert frame.loc[3, ["divergence", "untuned_divergence"]].tolist() == [0.25, 1.5]
    assert frame["feasible"].isna().sum() == 1  # the failed one
    assert set(frame.index[frame["on_front"]]) == {t.number for t in run.front()}
    baseline = tables.front_json(run)["baseline"]
    assert baseline["feasible"] is False
    assert baseline["violations"] == {"max_size_bytes": 579_000}
    assert tables.trial_json(run, run.trials[3])["untuned_divergence"] == 1.5
    assert tables.trial_json(run, run.trials[-1])["feasible"] is None
    assert all(point["feasible"] for point in tables.front_json(run)["points"])


def test_hypervolume_counts_what_keeps_the_limits(make_run: Factory) -> None:
    free, run = make_run(30), limited(make_run(30), TIGHT)
    history = tables.hypervolume_history(run)
    assert set(history["trial"]) == {t.number for t in run.feasible}
    final = tables.hypervolume_history(free)["hypervolume"].iloc[-1]
    assert history["hypervolume"].iloc[-1] < final
    assert tables.controls_hypervolume(limited(free, IMPOSSIBLE)) == 0.0


def test_front_figure_draws_what_breaks_a_limit_apart(make_run: Factory) -> None:
    run = limited(make_run(30), TIGHT)
    figure = front_figure(run, "size")
    broken = trace_of(figure, "breaks a limit")
    searched = [t for t in run.complete if t.role == "search"]
    assert len(broken.x) == sum(not run.is_feasible(t) for t in searched)
    assert all("breaks a limit: " in text for text in broken.hovertext)
    line = trace_of(figure, "best accuracy")
    assert max(line.x) <= 300  # kB
    assert not any(t.name == "breaks a limit" for t in front_figure(make_run(30), "size").data)
    assert "breaks" not in hover_text(run, run.front()[0])


@pytest.mark.parametrize("limits", [TIGHT, IMPOSSIBLE])
def test_page_of_a_run_with_limits_says_what_they_leave(make_run: Factory, limits: Limits) -> None:
    run = limited(make_run(20), limits)
    page = render_page(run)
    assert f"limits of the run: {limits_text(limits)}" in page
    assert f"{len(run.feasible)} of {len(run.comparable)} points do" in page
    assert ("No compressed point keeps the limits" in page) == (limits == IMPOSSIBLE)
    assert "too large" in page
    assert len(tiles(run)) == 4
    best = " ".join(tile.value + tile.detail for tile in tiles(run)[1:3])
    assert ("none" in best) == (limits == IMPOSSIBLE)


def test_page_of_a_run_without_limits_does_not_speak_of_them(make_run: Factory) -> None:
    run = make_run(20)
    assert not any("limit" in line for line in sentences(run))
    assert "breaks a limit" not in render_page(run).replace(page_script(), "")


def test_page_shows_stopped_trials_with_their_reason(make_run: Factory) -> None:
    run = with_stopped(make_run(20), 12, "Not tuned: 9 bytes & nothing speaks for it.")
    page = render_page(run)
    assert "1 stopped early" in page
    assert "<td>stopped early</td><td>Not tuned: 9 bytes &amp; nothing speaks for it.</td>" in page
    assert "unfinished." not in page.split("</header>")[0]
    frame = tables.trials_table(run).set_index("trial")
    assert frame.loc[12, "state"] == "stopped"
    assert frame.loc[12, "reason"].startswith("Not tuned")


def test_page_of_a_training_free_run_compares_what_was_not_trained(make_run: Factory) -> None:
    run = untrained(make_run(20))
    figures = run_figures(run)
    assert "control without tuning" not in [t.name for t in figures["size"].data]
    assert len(trace_of(figures["size"], "control (").x) == len(run.controls)
    assert len(tables.hypervolume_history(run)) == len(run.complete)
    assert "smaller at" in findings.headline(run, OBJECTIVES["size"])
    assert not any("untuned control" in line for line in sentences(run))
    assert render_page(run)


def test_no_tile_calls_noise_a_speedup(make_run: Factory) -> None:
    run = make_run(20)
    trials = tuple(
        dataclasses.replace(t, measurement=dataclasses.replace(t.measurement, latency_ms=0.74))
        if t.measurement and t.role != "baseline"
        else t
        for t in run.trials
    )
    (tile,) = (t for t in tiles(dataclasses.replace(run, trials=trials)) if "Fastest" in t.title)
    assert tile.value == "no measurable gain"
    (tile,) = (t for t in tiles(run) if "Fastest" in t.title)
    assert tile.value.endswith("faster")
