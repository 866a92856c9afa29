import dataclasses
import html
import re
from collections.abc import Callable

import plotly.graph_objects as go

from autocompress.report.page import render_page
from autocompress.report.page_sections import gain_section
from autocompress.run_record import RunRecord

Factory = Callable[..., RunRecord]


def words(section: str) -> str:
    text = re.sub(r"<script.*?</script>", " ", section, flags=re.DOTALL)
    return html.unescape(" ".join(re.sub(r"<[^>]+>", " ", text).split()))


def with_seed(run: RunRecord, seed: int) -> RunRecord:
    return dataclasses.replace(run, info={**run.info, "seed": seed})


def test_gain_section_of_one_seed_has_no_error_bars_and_says_how_to_get_them(
    make_run: Factory,
) -> None:
    text = words(gain_section(make_run(30)))
    assert "30 searched trials" in text
    assert "6 controls" in text
    assert "One seed: no error bars." in text
    command = "autocompress search examples/02_cifar10_resnet20.py --budget 39 --seed 1 --run"
    assert f"{command} resnet20-1" in text
    assert "±" not in text


def test_gain_section_over_seeds_states_n_and_the_deviation(make_run: Factory) -> None:
    runs = [with_seed(make_run(30, seed=seed), seed) for seed in range(3)]
    text = words(gain_section(runs[0], runs[1:]))
    assert "Mean ± standard deviation over 3 seeds (0, 1, 2), of each the first 39 trials" in text
    assert "no error bars" not in text
    assert re.search(r"both together \d+\.\d{3} ± \d+\.\d{3}", text)
    assert re.search(r"1 pt [\d.]+ ± [\d.]+ kB [\d.]+ ± [\d.]+ kB [\d.]+ ± [\d.]+×", text)
    assert re.search(r"1 pt 0\.\d{3} ± 0\.\d{3} ms", text)


def test_gain_section_shows_latencies_of_less_than_a_microsecond(make_run: Factory) -> None:
    run = make_run(10)
    trials = tuple(
        dataclasses.replace(
            t,
            measurement=dataclasses.replace(
                t.measurement,
                latency_ms=t.measurement.latency_ms / 1e3,
                baseline_latency_ms=t.measurement.baseline_latency_ms / 1e3,
            ),
        )
        if t.measurement and t.measurement.latency_ms and t.measurement.baseline_latency_ms
        else t
        for t in run.trials
    )
    text = words(gain_section(dataclasses.replace(run, trials=trials), []))
    assert re.search(r"1 pt 0\.000[1-9]\d\d ms", text)


def test_gain_section_says_in_how_many_seeds_a_point_exists(make_run: Factory) -> None:
    run = make_run(30)
    # a repeat in which nothing searched comes near the baseline
    hopeless = dataclasses.replace(
        with_seed(run, 1),
        trials=tuple(
            dataclasses.replace(
                t, measurement=dataclasses.replace(t.measurement, accuracy=0.1)
            )
            if t.role == "search" and t.measurement
            else t
            for t in run.trials
        ),
    )  # fmt: skip
    assert "(1 of 2 seeds)" in words(gain_section(run, [hopeless]))
    assert "none" in words(gain_section(hopeless))


def test_gain_section_is_empty_without_something_to_compare(make_run: Factory) -> None:
    assert gain_section(make_run(5, with_controls=False)) == ""
    assert gain_section(make_run(0)) == ""
    assert gain_section(make_run(5, with_baseline=False)) == ""


def test_gain_section_escapes_names_and_quotes_them_for_the_shell(make_run: Factory) -> None:
    run = make_run(5, name="<b> $(x)")
    section = gain_section(run)
    assert "<b>" not in section
    assert "--run &#x27;&lt;b&gt; $(x)-1&#x27;" in section


def test_gain_section_escapes_seeds(make_run: Factory) -> None:
    run = make_run(5)
    evil = dataclasses.replace(run, info={**run.info, "seed": "<i>"})
    figures: dict[str, go.Figure] = {}
    section = gain_section(run, [evil], figures)
    assert "2 seeds (0, &lt;i&gt;)" in section
    assert "<i>" not in section
    dots = figures["gain-size"].to_json()
    assert "seed &lt;i&gt;:" in dots  # what a pointer over a dot shows
    assert "<i>" not in dots


def test_render_page_holds_the_section_and_its_charts(make_run: Factory) -> None:
    run = make_run(20)
    page = render_page(run, [with_seed(make_run(20, seed=1), 1)])
    assert page.count("<h2>Search gain</h2>") == 1
    for name in ("gain-size", "gain-latency"):
        assert f'data-figure="{name}"' in page
        assert f'"{name}":{{"data":' in page
    without_latency = render_page(make_run(20, objectives="accuracy,size"))
    assert 'data-figure="gain-latency"' not in without_latency
