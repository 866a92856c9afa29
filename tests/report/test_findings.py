import dataclasses
import re
from collections.abc import Callable
from typing import Any

import pytest

from autocompress.objective import OBJECTIVES
from autocompress.report import findings
from autocompress.run_record import RunRecord, TrialRecord

SIZE, LATENCY = OBJECTIVES["size"], OBJECTIVES["latency"]
Factory = Callable[..., RunRecord]


def edited(run: RunRecord, **figures_by_label: dict[str, Any]) -> RunRecord:
    """The run with some figures of some trials replaced; keys are labels with _ for the rest."""
    trials = []
    for trial in run.trials:
        figures = figures_by_label.pop(trial.label.replace(" ", "_").replace("-", "_"), None)
        if figures and trial.measurement:
            measurement = dataclasses.replace(trial.measurement, **figures)
            trial = dataclasses.replace(trial, measurement=measurement)
        trials.append(trial)
    assert not figures_by_label, "no trial has this label"
    return dataclasses.replace(run, trials=tuple(trials))


def labelled(run: RunRecord, label: str) -> TrialRecord:
    return next(t for t in run.trials if t.label == label)


def test_cheapest_within_takes_the_drop_of_exactly_one_point(make_run: Factory) -> None:
    run = edited(make_run(2), trial_7={"accuracy": 0.9173 - 0.01, "size_bytes": 10})
    found = findings.cheapest_within(run, run.complete, SIZE)
    assert found == labelled(run, "trial 7")


def test_cheapest_within_refuses_the_next_step_below(make_run: Factory) -> None:
    run = edited(make_run(2), trial_7={"accuracy": 0.9173 - 0.0101, "size_bytes": 10})
    assert findings.cheapest_within(run, run.complete, SIZE) != labelled(run, "trial 7")


def test_cheapest_within_never_returns_the_baseline(make_run: Factory) -> None:
    run = make_run(0, with_controls=False)
    assert findings.cheapest_within(run, run.complete, SIZE) is None


def test_cheapest_within_agrees_with_a_plain_search(make_run: Factory) -> None:
    run = make_run(40, seed=3)
    fits = [
        t.measurement
        for t in run.complete
        if t.role != "baseline" and t.measurement and t.measurement.accuracy >= 0.9173 - 0.03
    ]
    found = findings.cheapest_within(run, run.complete, SIZE, max_drop=0.03)
    assert found is not None
    assert findings.measured(found).size_bytes == min(m.size_bytes for m in fits)


def test_gain_of_latency_uses_the_interleaved_baseline(make_run: Factory) -> None:
    figures = {"latency_ms": 0.5, "baseline_latency_ms": 1.5}
    run = edited(make_run(1), trial_7=figures)
    assert findings.gain(run, labelled(run, "trial 7"), LATENCY) == pytest.approx(3.0)


def test_headline_states_ratio_and_drop(make_run: Factory) -> None:
    figures = {"accuracy": 0.9133, "size_bytes": 110_102}
    run = edited(make_run(1), trial_7=figures)
    assert findings.headline(run, SIZE) == "9.8× smaller at −0.4 pt"


def test_headline_says_so_when_there_is_nothing_to_compare(make_run: Factory) -> None:
    assert "No baseline" in findings.headline(make_run(3, with_baseline=False), SIZE)
    alone = make_run(0, with_controls=False)
    assert findings.headline(alone, SIZE) == "Nothing but the baseline is measured yet"


def test_headline_ignores_points_without_tuning(make_run: Factory) -> None:
    run = edited(make_run(0), int8_post_training={"size_bytes": 1, "accuracy": 0.9173})
    assert findings.headline(run, SIZE).startswith("7.5×")


@pytest.mark.parametrize(
    ("latency_ms", "verdict"),
    [(0.30, "better"), (0.395, "level"), (0.405, "level"), (0.5, "worse")],
)
def test_compare_with_controls_needs_more_than_the_spread(
    make_run: Factory, latency_ms: float, verdict: str
) -> None:
    run = edited(
        make_run(1),
        trial_7={"accuracy": 0.917, "latency_ms": latency_ms},
        int8_post_training={"accuracy": 0.917, "latency_ms": 0.4},
    )
    found = findings.compare_with_controls(run, LATENCY)
    assert found.verdict == verdict
    assert found.ratio == pytest.approx(0.4 / latency_ms)


def test_a_gain_over_a_control_slower_than_doing_nothing_is_none(make_run: Factory) -> None:
    """1.35x faster than an int8 that is slower than the original: that is 1.2x."""
    run = make_run(1)
    slow = {re.sub("[ -]", "_", trial.label): {"latency_ms": 1.35} for trial in run.controls}
    run = edited(run, trial_7={"accuracy": 0.917, "latency_ms": 1 / 1.2}, **slow)
    assert run.baseline is not None
    found = findings.compare_with_controls(run, LATENCY)
    assert found.control is run.baseline
    assert found.ratio == pytest.approx(1.2 * run.baseline.measurement.latency_ms)


def test_compare_with_controls_names_the_missing_side(make_run: Factory) -> None:
    bare = edited(make_run(1, with_controls=False), trial_1={"accuracy": 0.917})
    assert findings.compare_with_controls(bare, SIZE).verdict == "only_search"
    assert findings.compare_with_controls(make_run(0), SIZE).verdict == "only_control"
    lost = edited(make_run(1, with_controls=False), trial_1={"accuracy": 0.1})
    assert findings.compare_with_controls(lost, SIZE).verdict == "neither"


def test_beaten_controls_counts_only_tuned_ones_that_are_dominated(make_run: Factory) -> None:
    best = {"accuracy": 1.0, "size_bytes": 1, "latency_ms": 0.01}
    run = edited(make_run(1), trial_7=best)
    assert {t.label for t in findings.dominated_controls(run)} == {
        "uniform 8 bit",
        "uniform 4 bit",
        "uniform 3 bit",
        "uniform 2 bit",
        "uniform pruning 25 %",
    }
    assert findings.dominated_controls(make_run(0)) == ()
