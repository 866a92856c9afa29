import dataclasses
from pathlib import Path

import pytest

from autocompress.cli.search import print_result
from autocompress.measurement import Measurement
from autocompress.objective import parse_objectives
from autocompress.plan import CompressionPlan
from autocompress.run_record import RunRecord, TrialRecord

BASE = Measurement(
    fidelity=1, accuracy=0.9, loss=0.1, size_bytes=2000, latency_ms=None, latency_spread_ms=None,
    baseline_latency_ms=None, macs=1, n_params=1, seconds=1.0,
)  # fmt: skip


def trial(number: int, **changes: float) -> TrialRecord:
    return TrialRecord(
        number=number,
        role="search" if number else "baseline",
        label=f"trial {number}",
        state="complete",
        levels={},
        plan=CompressionPlan(),
        measurement=dataclasses.replace(BASE, **changes),  # type: ignore[arg-type]
        reason=None,
    )


@pytest.mark.parametrize(
    ("trials", "hint"),
    [
        ((trial(0), trial(1, size_bytes=500, accuracy=0.895)), "'my runs/r' --max-drop 0.01"),
        ((trial(0), trial(1, size_bytes=500, accuracy=0.5)), "'my runs/r' --trial 1"),
        ((trial(0),), None),
    ],
)
def test_a_search_ends_with_a_command_that_works(
    trials: tuple[TrialRecord, ...], hint: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunRecord(
        name="r", folder=Path("my runs/r"), objectives=parse_objectives("accuracy,size"),
        knobs=(), trials=trials, info={},
    )  # fmt: skip
    print_result(run, as_json=False)
    said = capsys.readouterr().err
    assert ("Export" in said) == (hint is not None)
    assert hint is None or f"autocompress export {hint}\n" in said
