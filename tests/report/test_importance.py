import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import spearmanr

from autocompress.objective import OBJECTIVES
from autocompress.report.findings import measured
from autocompress.report.importance_figure import (
    LEAST_TRIALS,
    importance_figure,
    importance_rows,
    importances,
    knob_importance,
)
from autocompress.run_record import RunRecord

Factory = Callable[..., RunRecord]


def test_knob_importance_is_spearmans_rho(make_run: Factory) -> None:
    run = make_run(30)
    found = knob_importance(run, OBJECTIVES["size"])
    assert found is not None
    trials = run.comparable
    assert found.n_trials == len(trials)
    sizes = [measured(t).size_bytes for t in trials]
    for knob, rho in zip(found.knobs, found.rho, strict=True):
        levels = [t.levels[knob.name] for t in trials]
        assert rho == pytest.approx(spearmanr(levels, sizes).statistic)


def test_knob_importance_leaves_out_a_knob_that_nobody_turned(make_run: Factory) -> None:
    run = make_run(30)
    idle = run.knobs[0].name
    trials = tuple(dataclasses.replace(t, levels={**t.levels, idle: 0}) for t in run.trials)
    found = knob_importance(dataclasses.replace(run, trials=trials), OBJECTIVES["size"])
    assert found is not None
    assert idle not in [knob.name for knob in found.knobs]


def test_knob_importance_is_silent_with_few_trials_or_equal_figures(make_run: Factory) -> None:
    few = make_run(LEAST_TRIALS - 8)  # and six tuned controls and baseline
    assert len(few.comparable) == LEAST_TRIALS - 2
    assert knob_importance(few, OBJECTIVES["size"]) is None
    run = make_run(30)
    flat = tuple(
        t
        if t.measurement is None
        else dataclasses.replace(t, measurement=dataclasses.replace(t.measurement, accuracy=0.9))
        for t in run.trials
    )
    equal = dataclasses.replace(run, trials=flat)
    assert knob_importance(equal, OBJECTIVES["accuracy"]) is None
    assert [i.objective.name for i in importances(equal)] == ["size", "latency"]


def test_importance_figure_and_rows_put_the_strongest_knob_first(make_run: Factory) -> None:
    run = make_run(40)
    found = importances(run)
    headers, rows = importance_rows(run)
    assert headers == ["knob", "accuracy", "size", "latency"]
    largest = max(abs(rho) for importance in found for rho in importance.rho)
    assert max(abs(float(cell)) for cell in rows[0][1:]) == pytest.approx(largest, abs=0.006)
    figure = importance_figure(found)
    assert [trace.name for trace in figure.data] == ["accuracy", "size", "latency"]
    assert "follows" in figure.layout.title.text


def test_importance_figure_finds_nothing_in_noise_however_many_knobs_there_are(
    make_run: Factory,
) -> None:
    run = make_run(50, layers=tuple(f"l{i}" for i in range(38)), objectives="accuracy,size")
    names = [knob.name for knob in run.knobs]
    shuffled = np.random.default_rng(0)
    n_found = 0
    for _ in range(20):
        trials = tuple(
            dataclasses.replace(
                t,
                levels=dict(zip(names, shuffled.integers(0, 2, len(names)).tolist(), strict=True)),
                measurement=t.measurement
                and dataclasses.replace(t.measurement, accuracy=shuffled.uniform(0.8, 0.9)),
            )
            for t in run.trials
        )
        found = knob_importance(dataclasses.replace(run, trials=trials), OBJECTIVES["accuracy"])
        assert found is not None
        assert found.chance < 0.28 < found.chance_of_any
        n_found += "follows" in importance_figure([found]).layout.title.text
    assert n_found <= 3  # of 20; 17 with the bound of a single knob


def test_importance_figure_escapes_names(make_run: Factory) -> None:
    found = importances(make_run(30, layers=("<i>a</i>", "b", "c")))
    text = str(importance_figure(found).to_dict())
    assert "&lt;i&gt;a&lt;/i&gt;" in text
    assert "<i>" not in text


def test_importance_figure_says_so_with_too_few_trials() -> None:
    assert "It takes 20 tuned trials" in importance_figure([]).layout.annotations[0].text
