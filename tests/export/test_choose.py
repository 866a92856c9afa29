import dataclasses
from pathlib import Path

import pytest

from autocompress.errors import InputError, NoPointError
from autocompress.export.choose import choose_point
from autocompress.measurement import Measurement
from autocompress.objective import Limits, parse_objectives
from autocompress.plan import CompressionPlan
from autocompress.run_record import RunRecord, TrialRecord


def trial(
    number: int, accuracy: float | None, size: int = 0, latency_ms: float = 1.0
) -> TrialRecord:
    measurement = None
    if accuracy is not None:
        measurement = Measurement(
            fidelity=1,
            accuracy=accuracy,
            loss=0.1,
            size_bytes=size,
            latency_ms=latency_ms,
            latency_spread_ms=0.0,
            baseline_latency_ms=1.0,
            macs=1,
            n_params=1,
            seconds=1.0,
        )
    return TrialRecord(
        number=number,
        role="baseline" if number == 0 else "search",
        label=f"trial {number}",
        state="complete" if measurement else "failed",
        levels={},
        plan=CompressionPlan(pruning_ratios={"a": number / 100}),
        measurement=measurement,
        reason=None if measurement else "nonfinite_loss: The loss became nan.",
    )


@pytest.fixture
def run() -> RunRecord:
    return RunRecord(
        name="r",
        folder=Path("results/r"),
        objectives=parse_objectives("accuracy,size,latency"),
        knobs=(),
        trials=(
            trial(0, 0.95, 1000, 1.0),
            trial(1, 0.95, 400, 0.8),
            trial(2, 0.94, 100, 0.7),
            trial(3, 0.939, 90, 0.2),
            trial(4, 0.5, 10, 0.1),
            trial(5, None),
            trial(6, 0.93, 500, 0.9),
        ),
        info={},
    )


@pytest.mark.parametrize(
    ("max_drop", "by", "number"),
    [
        (0.0, "size", 1),
        (0.01, "size", 2),
        (0.02, "size", 3),
        (0.01, "latency", 2),
        (1.0, "size", 4),
    ],
)
def test_choose_point_takes_the_cheapest_within_the_drop(
    run: RunRecord, max_drop: float, by: str, number: int
) -> None:
    assert choose_point(run, max_drop=max_drop, by=by).number == number


def test_choose_point_takes_the_knee_by_default(run: RunRecord) -> None:
    assert choose_point(run) == run.knee()
    assert choose_point(run).number == 3


def test_choose_point_by_number_takes_beaten_trials_too(run: RunRecord) -> None:
    assert choose_point(run, trial=6).number == 6


@pytest.mark.parametrize(
    ("number", "message"),
    [(7, r"in \[0, 6\]"), (-1, "but got -1"), (5, "is failed: nonfinite_loss")],
)
def test_choose_point_refuses_trials_without_figures(
    run: RunRecord, number: int, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        choose_point(run, trial=number)


@pytest.mark.parametrize("max_drop", [-0.01, 1.5])
def test_choose_point_refuses_a_drop_that_is_no_share(run: RunRecord, max_drop: float) -> None:
    with pytest.raises(InputError, match=f"but got {max_drop}"):
        choose_point(run, max_drop=max_drop)


def test_choose_point_keeps_the_limits_of_the_run(run: RunRecord) -> None:
    limited = dataclasses.replace(run, limits=Limits(max_size_bytes=400, max_latency_ms=0.75))
    assert choose_point(limited, max_drop=0.05).number == 3
    assert choose_point(limited, max_drop=0.01).number == 2
    assert choose_point(limited).number in {2, 3, 4}
    assert choose_point(limited, trial=6).number == 6  # asked for by its number


def test_choose_point_says_when_nothing_keeps_the_limits(run: RunRecord) -> None:
    limited = dataclasses.replace(run, limits=Limits(max_size_bytes=5))
    for settings in ({}, {"max_drop": 0.5}):
        with pytest.raises(NoPointError, match="keeps the run's limits") as caught:
            choose_point(limited, **settings)
        assert "--trial N" in caught.value.hint


def test_choose_point_says_when_nothing_is_within_the_drop() -> None:
    run = RunRecord(
        name="r",
        folder=Path("r"),
        objectives=parse_objectives("accuracy,size"),
        knobs=(),
        trials=(trial(0, 0.95, 1000), trial(1, 0.8, 10)),
        info={},
    )
    with pytest.raises(NoPointError, match=r"keeps 94\.00% accuracy") as caught:
        choose_point(run, max_drop=0.01)
    assert caught.value.exit_code == 4
    with pytest.raises(NoPointError, match="no measured point"):
        choose_point(
            RunRecord(
                name="r",
                folder=Path("r"),
                objectives=run.objectives,
                knobs=(),
                trials=(),
                info={},
            )
        )
