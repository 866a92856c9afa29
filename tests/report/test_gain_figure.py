import dataclasses
from collections.abc import Callable

import pytest

from autocompress.report.findings import Verdict
from autocompress.report.gain_figure import drop_name, gain_figure
from autocompress.report.search_gain import GainAtDrop, Spread, search_gain
from autocompress.run_record import RunRecord

Factory = Callable[..., RunRecord]


def rows_of(run: RunRecord, *repeats: RunRecord, cost: str = "size") -> list[GainAtDrop]:
    gain = search_gain(run, repeats)
    assert gain is not None
    return [row for row in gain.at_drops if row.cost.name == cost]


def test_gain_figure_of_one_run_has_a_mark_per_side_and_no_dots(make_run: Factory) -> None:
    rows = rows_of(make_run(30))
    figure = gain_figure(rows, (0,))
    assert [trace.name for trace in figure.data] == ["search", "controls"]
    for trace, sides in zip(
        figure.data, ([r.search for r in rows], [r.controls for r in rows]), strict=True
    ):
        known = [side.mean / 1000 for side in sides if side.mean is not None]
        assert list(trace.y) == pytest.approx(known)
        assert set(trace.error_y.array) <= {0.0}
    assert "[kB]" in figure.layout.yaxis.title.text


def test_gain_figure_of_seeds_shows_every_run_its_mean_and_deviation(make_run: Factory) -> None:
    runs = [make_run(30, seed=seed) for seed in range(3)]
    rows = rows_of(*runs)
    figure = gain_figure(rows, (0, 1, 2))
    traces = {trace.name: trace for trace in figure.data}
    assert set(traces) == {"search", "search, single runs", "controls", "controls, single runs"}
    dots = [value / 1000 for row in rows for value in row.search.known]
    assert list(traces["search, single runs"].y) == pytest.approx(dots)
    deviations = [(r.search.deviation or 0.0) / 1000 for r in rows if r.search.known]
    assert list(traces["search"].error_y.array) == pytest.approx(deviations)
    assert max(deviations) > 0
    assert "seed 2" in " ".join(traces["search, single runs"].hovertext)


def test_gain_figure_says_in_its_title_who_is_ahead(make_run: Factory) -> None:
    rows = rows_of(make_run(30))

    def title(*ratios: float | None, verdict: Verdict = "better") -> str:
        changed = [
            dataclasses.replace(row, ratio=Spread(values=ratios), verdicts=(verdict,))
            for row in rows
        ]
        return str(gain_figure(changed, (0,)).layout.title.text)

    assert "Search against controls within 1 pt: 2.50× smaller" in title(2.5)
    assert "1.25× larger" in title(0.8)
    assert "no clear difference" in title(1.01, verdict="level")
    assert "no clear difference" in title(0.8, 1.3)
    assert "1.50× smaller" in title(1.48, 1.5, 1.52)
    assert "no clear difference" in title(1.4, 1.6)  # two seeds say little
    assert "No pair to compare within 1 pt" in title(None)


def test_gain_figure_by_latency_is_in_milliseconds(make_run: Factory) -> None:
    figure = gain_figure(rows_of(make_run(30), cost="latency"), (0,))
    assert "[ms]" in figure.layout.yaxis.title.text


def test_gain_figure_without_any_point_says_so(make_run: Factory) -> None:
    nothing = Spread(values=(None,))
    rows = [
        dataclasses.replace(row, search=nothing, controls=nothing, ratio=nothing)
        for row in rows_of(make_run(30))
    ]
    figure = gain_figure(rows, (0,))
    assert not figure.data
    assert "No point to compare by size" in figure.layout.title.text


def test_drop_name() -> None:
    assert [drop_name(drop) for drop in (0.0, 0.005, 0.02)] == ["none", "0.5 pt", "2 pt"]
