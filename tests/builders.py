"""Measurements, trial records and run records; a test names only the figures that it is about."""

from pathlib import Path
from typing import Any

from autocompress.measurement import Measurement
from autocompress.objective import parse_objectives
from autocompress.plan import CompressionPlan
from autocompress.run_record import RunRecord, TrialRecord


def make_measurement(**changes: Any) -> Measurement:
    """Figures of a candidate that was tuned and not timed."""
    figures: dict[str, Any] = {
        "fidelity": 1,
        "accuracy": 0.9,
        "loss": 0.1,
        "size_bytes": 1000,
        "latency_ms": None,
        "latency_spread_ms": None,
        "baseline_latency_ms": None,
        "macs": 1,
        "n_params": 1,
        "seconds": 1.0,
    }
    return Measurement(**{**figures, **changes})


def make_trial(
    number: int = 0, measurement: Measurement | None = None, **changes: Any
) -> TrialRecord:
    """A trial: number 0 is the baseline, and one without a measurement has failed."""
    facts: dict[str, Any] = {
        "role": "search" if number else "baseline",
        "label": f"trial {number}",
        "state": "complete" if measurement else "failed",
        "levels": {},
        "plan": CompressionPlan(),
        "reason": None,
    }
    return TrialRecord(number=number, measurement=measurement, **{**facts, **changes})


def make_run(*trials: TrialRecord, objectives: str = "accuracy,size", **changes: Any) -> RunRecord:
    """A run without knobs; `objectives` as on the command line."""
    facts: dict[str, Any] = {"name": "r", "folder": Path("results/r"), "knobs": (), "info": {}}
    return RunRecord(trials=trials, objectives=parse_objectives(objectives), **{**facts, **changes})
