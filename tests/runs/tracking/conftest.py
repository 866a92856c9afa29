"""A search that costs nothing: trials that are there already are told one after the other."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autocompress.measurement import Measurement
from autocompress.objective import parse_objectives
from autocompress.run_record import RunRecord, TrialRecord
from autocompress.space.search_space import SearchSpace

_STATES = ("complete", "complete", "failed", "complete", "stopped", "complete")


def _trial(space: SearchSpace, number: int) -> TrialRecord:
    levels = {knob.name: min(number, len(knob.levels) - 1) for knob in space.knobs}
    state = _STATES[number]
    measured = Measurement(
        fidelity=1, accuracy=0.95 - number / 100, loss=0.1, size_bytes=100_000 // (number + 1),
        latency_ms=1.0 / (number + 1), latency_spread_ms=0.1, baseline_latency_ms=1.0, macs=1000,
        n_params=100, seconds=0.5,
    )  # fmt: skip
    return TrialRecord(
        number=number,
        role="search" if number else "baseline",
        label=f"trial {number}" if number else "baseline",
        state=state,  # type: ignore[arg-type]
        levels=levels,
        plan=space.decode(levels),
        measurement=measured if state == "complete" else None,
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
        return RunRecord(
            name="run",
            folder=run_folder,
            objectives=parse_objectives("accuracy,size,latency"),
            knobs=space.knobs,
            trials=tuple(trials[:n_trials]),
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
