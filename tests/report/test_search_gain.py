import dataclasses
import json
import math
from collections.abc import Callable

import pytest

from autocompress.objective import Limits
from autocompress.report.search_gain import DROPS, GainAtDrop, SearchGain, Spread, search_gain
from autocompress.report.tables import controls_hypervolume, hypervolume_history
from autocompress.run_record import Role, RunRecord
from tests import builders
from tests.builders import make_measurement, make_trial

Factory = Callable[..., RunRecord]
Point = tuple[Role, float, int, float]  # role, accuracy, bytes, ms


def small_run(*points: Point, seed: int = 0, base_ms: float = 1.0, **changes: object) -> RunRecord:
    trials = []
    for number, (role, accuracy, size_bytes, latency_ms) in enumerate(points):
        trials.append(
            make_trial(
                number,
                make_measurement(
                    accuracy=accuracy,
                    size_bytes=size_bytes,
                    latency_ms=latency_ms,
                    latency_spread_ms=0.0,
                    baseline_latency_ms=base_ms,
                ),
                role=role,
            )
        )
    run = builders.make_run(*trials, objectives="accuracy,size,latency", info={"seed": seed})
    return dataclasses.replace(run, **changes)


BASE: Point = ("baseline", 0.90, 1000, 1.0)
ONE = small_run(
    BASE,
    ("control", 0.90, 500, 0.8),
    ("control", 0.885, 200, 0.5),
    ("search", 0.895, 250, 0.4),
    ("search", 0.882, 50, 0.9),
)


def at(gain: SearchGain | None, cost: str, drop: float) -> GainAtDrop:
    assert gain is not None
    (row,) = [r for r in gain.at_drops if r.cost.name == cost and r.max_drop == drop]
    return row


def test_search_gain_compares_the_cheapest_points_within_each_drop() -> None:
    gain = search_gain(ONE)
    found = {
        drop: (at(gain, "size", drop).search.values[0], at(gain, "size", drop).controls.values[0])
        for drop in DROPS
    }
    assert found == {0.0: (None, 500), 0.005: (250, 500), 0.01: (250, 500), 0.02: (50, 200)}
    assert at(gain, "size", 0.0).ratio.values == (None,)
    assert at(gain, "size", 0.02).ratio.values == (4.0,)
    assert at(gain, "latency", 0.02).search.values == (0.4,)
    assert at(gain, "latency", 0.02).ratio.values == (pytest.approx(0.5 / 0.4),)


def test_search_gain_hypervolumes_equal_the_boxes_by_hand() -> None:
    gain = search_gain(small_run(BASE, ("control", 0.88, 500, 0.5), ("search", 0.90, 250, 1.0)))
    assert gain is not None
    volumes = {side: spread.values[0] for side, spread in gain.hypervolumes.items()}
    # Two points lost are worth 1 - log(1 + 2 / 0.25) / log(17) of what counts; halvings from twice
    # the baseline's costs: boxes of that x 2 x 2 and of 1 x 3 x 1, less the baseline's 1 x 1 x 1.
    worth = 1.0 - math.log(9.0) / math.log(17.0)
    assert volumes["controls"] == pytest.approx(worth * (4.0 - 1.0))
    assert volumes["search"] == pytest.approx(3.0 - 1.0)
    assert volumes["both"] == pytest.approx(4.0 * worth + 3.0 - worth * 2.0 * 1.0 - 1.0)


def test_search_gain_agrees_with_the_figure_of_the_hypervolume(make_run: Factory) -> None:
    run = make_run(12)
    gain = search_gain(run)
    assert gain is not None
    assert gain.hypervolumes["both"].mean == pytest.approx(
        hypervolume_history(run)["hypervolume"].iloc[-1]
    )
    assert gain.hypervolumes["controls"].mean == pytest.approx(controls_hypervolume(run))
    assert (gain.n_searched, gain.n_controls, gain.n_trials) == (12, 6, 21)


def test_search_gain_over_seeds_has_mean_and_deviation() -> None:
    better = small_run(*_points(ONE, size=125), seed=1)
    gain = search_gain(ONE, (better,))
    row = at(gain, "size", 0.01)
    assert gain is not None
    assert gain.seeds == (0, 1)
    assert row.search.values == (250, 125)
    assert row.search.mean == pytest.approx(187.5)
    assert row.search.deviation == pytest.approx(125 / math.sqrt(2))
    assert row.ratio.values == (2.0, 4.0)
    assert row.ratio.mean == pytest.approx(3.0)


def _points(run: RunRecord, size: int) -> list[Point]:
    """The points of a run, its first searched one with another size."""
    points = []
    for trial in run.trials:
        assert trial.measurement is not None
        m = trial.measurement
        assert m.latency_ms is not None
        points.append((trial.role, m.accuracy, m.size_bytes, m.latency_ms))
    points[3] = (*points[3][:2], size, points[3][3])
    return points


def test_search_gain_compares_milliseconds_by_their_ratio_to_the_baseline_beside() -> None:
    """In the repeat's hour everything took twice as long; its candidates are as fast."""
    slow_hour = small_run(
        *((role, accuracy, size, 2 * ms) for role, accuracy, size, ms in _points(ONE, 250)),
        seed=1,
        base_ms=2.0,
    )
    row = at(search_gain(ONE, (slow_hour,)), "latency", 0.01)
    assert row.search.values == (pytest.approx(0.4), pytest.approx(0.4))
    assert row.search.deviation == pytest.approx(0.0)


def test_search_gain_is_clear_beyond_the_spread_of_timing_or_of_seeds() -> None:
    def latency(ms: float, *repeats: float) -> GainAtDrop:
        runs = [
            small_run(BASE, ("control", 0.9, 500, 0.5), ("search", 0.9, 500, m), seed=i)
            for i, m in enumerate((ms, *repeats))
        ]
        return at(search_gain(runs[0], runs[1:]), "latency", 0.01)

    assert latency(0.4).is_clear
    assert latency(0.6).is_clear
    assert not latency(0.5).is_clear  # level
    assert latency(0.4, 0.402).is_clear
    assert latency(0.4, 0.41, 0.4).is_clear
    assert not latency(0.4, 0.43).is_clear  # two seeds say little
    assert not latency(0.4, 0.6).is_clear


def test_search_gain_counts_only_points_within_the_limits() -> None:
    limited = dataclasses.replace(ONE, limits=Limits(max_drop=0.01))
    row = at(search_gain(limited), "size", 0.02)
    assert (row.search.values, row.controls.values) == ((250,), (500,))


@pytest.mark.parametrize(
    "run",
    [
        small_run(BASE, ("control", 0.9, 500, 0.5)),
        small_run(BASE, ("search", 0.9, 500, 0.5)),
        small_run(("control", 0.9, 500, 0.5), ("search", 0.9, 500, 0.5)),
        small_run(),
    ],
    ids=["nothing searched", "no control", "no baseline", "empty"],
)
def test_search_gain_is_none_without_something_to_compare(run: RunRecord) -> None:
    assert search_gain(run) is None


def test_search_gain_leaves_out_repeats_without_a_baseline() -> None:
    broken = small_run(("control", 0.9, 500, 0.5), seed=1)
    gain = search_gain(ONE, (broken,))
    assert gain is not None
    assert gain.seeds == (0,)


def test_search_gain_to_json_is_json() -> None:
    gain = search_gain(ONE)
    assert gain is not None
    document = json.loads(json.dumps(gain.to_json(), allow_nan=False))
    assert list(document) == ["seeds", "n_trials", "hypervolume", "at_drops"]
    assert list(document["hypervolume"]) == ["search", "controls", "both"]
    assert document["at_drops"][3] == {
        "cost": "size_bytes",
        "max_drop": 0.02,
        "search": {"values": [50], "n": 1, "mean": 50.0, "standard_deviation": None},
        "controls": {"values": [200], "n": 1, "mean": 200.0, "standard_deviation": None},
        "ratio": {"values": [4.0], "n": 1, "mean": 4.0, "standard_deviation": None},
    }


def test_spread_passes_over_what_is_missing() -> None:
    spread = Spread(values=(1.0, None, 4.0))
    assert (spread.known, spread.mean) == ((1.0, 4.0), 2.5)
    assert spread.deviation == pytest.approx(3 / math.sqrt(2))
    assert (Spread(values=(None,)).mean, Spread(values=(2.0,)).deviation) == (None, None)
