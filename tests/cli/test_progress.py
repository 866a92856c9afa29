import dataclasses
from pathlib import Path

import pytest

from autocompress.cli.progress import SearchProgress
from autocompress.measurement import Measurement
from autocompress.objective import Limits, parse_objectives
from autocompress.plan import CompressionPlan
from autocompress.run_record import RunRecord, TrialRecord
from autocompress.search.stop_rules import StopRules

MEASUREMENT = Measurement(
    fidelity=1,
    accuracy=0.9,
    loss=0.1,
    size_bytes=2000,
    latency_ms=0.5,
    latency_spread_ms=0.1,
    baseline_latency_ms=1.0,
    macs=1,
    n_params=1,
    seconds=1.0,
)
TRIAL = TrialRecord(
    number=0,
    role="search",
    label="trial 0",
    state="complete",
    levels={},
    plan=CompressionPlan(),
    measurement=MEASUREMENT,
    reason=None,
)


def run_of(trial: TrialRecord, **limits: float) -> RunRecord:
    return RunRecord(
        name="r",
        folder=Path("results/r"),
        objectives=parse_objectives("accuracy,size"),
        knobs=(),
        trials=(trial,),
        info={},
        limits=Limits(**limits),  # type: ignore[arg-type]
    )


def finished_line(
    trial: TrialRecord, capsys: pytest.CaptureFixture[str], *, quiet: bool = False, **limits: float
) -> str:
    progress = SearchProgress(StopRules(budget=9), quiet=quiet)
    progress.listener.on_start(0, trial.label)
    progress.listener.on_finish(trial, run_of(trial, **limits))
    return capsys.readouterr().err


def test_progress_says_what_a_trial_reached(capsys: pytest.CaptureFixture[str]) -> None:
    line = finished_line(TRIAL, capsys)
    assert line == "[1/9] trial 0: 90.00%, 2.0 kB, 0.500 ms, on the front\n"


def test_progress_says_which_limit_a_trial_breaks(capsys: pytest.CaptureFixture[str]) -> None:
    line = finished_line(TRIAL, capsys, max_size_bytes=1500, max_latency_ms=0.25)
    assert line.endswith("0.500 ms, 500 B too large, 0.25 ms too slow\n")


def test_progress_tells_stopped_from_failed(capsys: pytest.CaptureFixture[str]) -> None:
    stopped = dataclasses.replace(TRIAL, state="stopped", measurement=None, reason="Not tuned.")
    failed = dataclasses.replace(stopped, state="failed", reason="oom: no memory")
    assert finished_line(stopped, capsys) == "[1/9] trial 0: stopped early: Not tuned.\n"
    assert finished_line(failed, capsys) == "[1/9] trial 0: failed (oom: no memory)\n"


def test_quiet_progress_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert finished_line(TRIAL, capsys, quiet=True) == ""


@pytest.mark.parametrize(
    ("ending", "has_started", "line"),
    [
        ("budget", False, "The budget of 9 trials is reached; nothing was left to do.\n"),
        ("budget", True, ""),
        ("exhausted", True, "The search space is exhausted: every plan in it has been measured.\n"),
        (
            "stalled",
            True,
            "Stalled after 1 trials: the last 4 searched ones did not raise the hypervolume by "
            "0.1 %. The same command with a larger --until-stalled, or without it, goes on.\n",
        ),
        (
            "timeout",
            True,
            "The time is up: 1 of 9 trials are finished. The same command goes on.\n",
        ),
    ],
)
def test_progress_says_why_a_search_ended_and_how_to_go_on(
    capsys: pytest.CaptureFixture[str], ending: str, has_started: bool, line: str
) -> None:
    progress = SearchProgress(StopRules(budget=9, until_stalled=4), quiet=False)
    progress.begin(run_of(TRIAL))
    if has_started:
        progress.listener.on_start(1, "trial 1")
    capsys.readouterr()
    progress.listener.on_end(ending)  # type: ignore[arg-type]
    assert capsys.readouterr().err == line
