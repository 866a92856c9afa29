import dataclasses
import io

import pytest
from rich.console import Console

from autocompress.objective import Limits
from autocompress.run_record import RunRecord, TrialRecord
from autocompress.terminal.live_view import LiveView, Pace, RunningTrial, best_points, facts_of
from tests.builders import make_measurement, make_run, make_trial

# accuracy, bytes, ms, role
POINTS = (
    (0.9173, 1_079_000, 0.75, "baseline"),
    (0.9165, 270_000, 0.60, "control"),
    (0.9120, 52_300, 0.40, "search"),
    (0.9100, 109_200, 0.21, "search"),
    (0.8800, 31_000, 0.20, "search"),
)


def trial(number: int, figures: tuple[float, int, float, str] | None, state: str) -> TrialRecord:
    if figures is None:
        return make_trial(number, role="search", state=state, reason="why")
    accuracy, size_bytes, latency_ms, role = figures
    measured = make_measurement(
        accuracy=accuracy,
        size_bytes=size_bytes,
        latency_ms=latency_ms,
        latency_spread_ms=0.01,
        baseline_latency_ms=0.75,
    )
    return make_trial(number, measured, role=role, state=state)


def run_of(n_points: int = len(POINTS), objectives: str = "accuracy,size,latency") -> RunRecord:
    states = ("failed", "stopped", "stopped", "running")
    trials = [trial(i, POINTS[i], "complete") for i in range(n_points)]
    trials += [trial(n_points + i, None, state) for i, state in enumerate(states)]
    return make_run(*trials, objectives=objectives)


def drawn(view: LiveView, columns: int, lines: int = 24) -> list[str]:
    console = Console(file=io.StringIO(), width=columns, height=lines, force_terminal=False)
    console.print(view)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.fixture
def view() -> LiveView:
    now_s = iter((0.0, *[120.0] * 99))
    pace = Pace(lambda: next(now_s))
    pace.start()
    pace.finish(8)
    view = LiveView(50, pace)
    view.show(run_of())
    view.running = {
        9: RunningTrial(label="trial 9", stage="tune", share=0.45),
        10: RunningTrial(label="int8 post-training"),
    }
    return view


@pytest.mark.parametrize("columns", [80, 120])
def test_live_view_fits_the_terminal_and_says_what_matters(view: LiveView, columns: int) -> None:
    lines = drawn(view, columns)
    text = "\n".join(lines)
    assert max(map(len, lines)) <= columns
    assert len(lines) <= 14
    assert lines[0].startswith("Searching ")
    assert "8/50" in lines[0]
    assert lines[1].startswith("hypervolume ")
    assert lines[1].endswith(", 1 failed, 2 stopped early, 240 trials/h, about 10 min left")
    for name, figures in (
        ("0  baseline", "91.73 %"),
        ("2  smallest at -1 pt", "20.63x"),
        ("3  fastest at -1 pt", "3.57x"),
    ):
        assert any(name in line and figures in line for line in lines), text
    assert [line.split()[:4] for line in lines[-2:]] == [
        ["trial", "9", "tune", "45%"],
        ["int8", "post-training", "starting"],
    ]


def test_live_view_leaves_out_the_points_where_there_is_no_room(view: LiveView) -> None:
    lines = drawn(view, 80, lines=8)
    assert len(lines) <= 8
    assert not any("baseline" in line for line in lines)
    assert lines[-2].startswith("trial 9")


def test_live_view_counts_the_trials_it_has_no_room_for(view: LiveView) -> None:
    view.running = {n: RunningTrial(label=f"trial {n}", stage="tune") for n in range(40)}
    lines = drawn(view, 80)
    assert len(lines) <= 24
    n_shown = sum("tune" in line for line in lines)
    assert lines[-1].strip() == f"and {40 - n_shown} more"


def test_live_view_gives_no_time_left_while_something_else_is_done(view: LiveView) -> None:
    view.aside = "Sensitivity table: 3 of 20 plans, about 40 s left"
    lines = drawn(view, 80)
    assert "min left" not in lines[1]
    assert view.aside in lines


def test_live_view_of_a_run_without_any_point_is_short() -> None:
    view = LiveView(9, Pace())
    view.show(dataclasses.replace(run_of(), trials=()))
    assert [line for line in drawn(view, 80) if line.strip()][1:] == []


def test_facts_of_a_run_without_a_baseline_name_no_hypervolume() -> None:
    assert facts_of(run_of(0)) == "1 failed, 2 stopped early"
    assert facts_of(run_of()).startswith(
        f"hypervolume {run_of().hypervolume(run_of().front()):.2f}"
    )


def test_best_points_pass_over_what_is_not_there() -> None:
    assert best_points(run_of(0)) == []
    assert [name for name, _ in best_points(run_of(1))] == ["baseline"]
    untimed = best_points(run_of(objectives="accuracy,size"))
    assert [name for name, _ in untimed] == ["baseline", "smallest at -1 pt", "best trade-off"]


def test_best_points_name_the_nearest_miss_where_nothing_keeps_the_limits() -> None:
    run = dataclasses.replace(run_of(), limits=Limits(max_size_bytes=30_000))
    assert [(name, t.number) for name, t in best_points(run)] == [
        ("baseline", 0),
        ("nearest miss", 4),
    ]
