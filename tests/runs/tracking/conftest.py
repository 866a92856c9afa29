"""A search that costs nothing: trials that are there already are told one after the other."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autocompress.run_record import RunRecord, TrialRecord
from autocompress.space.search_space import SearchSpace
from tests.builders import make_measurement, make_run, make_trial

_STATES = ("complete", "complete", "failed", "complete", "stopped", "complete")


def _trial(space: SearchSpace, number: int) -> TrialRecord:
    levels = {knob.name: min(number, len(knob.levels) - 1) for knob in space.knobs}
    state = _STATES[number]
    measured = make_measurement(
        accuracy=0.95 - number / 100,
        size_bytes=100_000 // (number + 1),
        latency_ms=1.0 / (number + 1),
        latency_spread_ms=0.1,
        baseline_latency_ms=1.0,
    )
    return make_trial(
        number,
        measured if state == "complete" else None,
        label=f"trial {number}" if number else "baseline",
        state=state,
        levels=levels,
        plan=space.decode(levels),
        reason={"failed": "export: no kernel", "stopped": "not tuned"}.get(state),
    )


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """Where the run's study would be."""
    return tmp_path / "run"


@pytest.fixture
def search(space: SearchSpace, run_folder: Path) -> Callable[..., RunRecord]:
    """Search up to a budget of at most six; goes on where the call before ended."""
    trials = [_trial(space, number) for number in range(len(_STATES))]
    done = 0

    def first(n_trials: int) -> RunRecord:
        return make_run(
            *trials[:n_trials],
            objectives="accuracy,size,latency",
            name="run",
            folder=run_folder,
            knobs=space.knobs,
            info={"seed": 0, "started": "2026-01-01", "versions": {"torch": "2.13.0"}},
        )

    def run(budget: int = 4, tracking: Any = None) -> RunRecord:
        nonlocal done
        if tracking is not None:
            tracking.begin(first(done))
            with tracking:
                for number in range(done, budget):
                    tracking.listener.on_finish(trials[number], first(number + 1))
        done = max(done, budget)
        return first(done)

    return run
