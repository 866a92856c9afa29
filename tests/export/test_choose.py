import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

from autocompress.errors import InputError, NoPointError
from autocompress.export.bundle import export_point
from autocompress.export.choose import choose_point
from autocompress.objective import Limits
from autocompress.plan import CompressionPlan
from autocompress.run_record import RunRecord, TrialRecord
from tests.builders import make_measurement, make_run, make_trial


def trial(
    number: int, accuracy: float | None, size: int = 0, latency_ms: float = 1.0
) -> TrialRecord:
    measurement = None
    if accuracy is not None:
        measurement = make_measurement(
            accuracy=accuracy,
            size_bytes=size,
            latency_ms=latency_ms,
            latency_spread_ms=0.0,
            baseline_latency_ms=1.0,
        )
    return make_trial(
        number,
        measurement,
        plan=CompressionPlan(pruning_ratios={"a": number / 100}),
        reason=None if measurement else "nonfinite_loss: The loss became nan.",
    )


@pytest.fixture
def run() -> RunRecord:
    return make_run(
        trial(0, 0.95, 1000, 1.0),
        trial(1, 0.95, 400, 0.8),
        trial(2, 0.94, 100, 0.7),
        trial(3, 0.939, 90, 0.2),
        trial(4, 0.5, 10, 0.1),
        trial(5, None),
        trial(6, 0.93, 500, 0.9),
        objectives="accuracy,size,latency",
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
        assert "`trial=N`" in caught.value.hint


def with_refined(run: RunRecord, *points: tuple[int, float, int]) -> RunRecord:
    refined = []
    for number, accuracy, size_bytes in points:
        found = trial(number, accuracy, size_bytes, 0.5)
        assert found.measurement is not None
        measurement = dataclasses.replace(found.measurement, fidelity=2)
        refined.append(dataclasses.replace(found, measurement=measurement))
    return dataclasses.replace(run, refined=tuple(refined))


def test_choose_point_takes_what_was_refined_in_place_of_its_trial(run: RunRecord) -> None:
    refined = with_refined(run, (6, 0.948, 300), (3, 0.945, 85))
    assert choose_point(refined, trial=6) == refined.refined[0]
    assert choose_point(refined, trial=2) == run.trials[2]
    assert choose_point(refined) == refined.refined[1]  # the knee is trial 3
    for number, message in ((9, r"in \[0, 6\]"), (5, "is failed")):
        with pytest.raises(InputError, match=message):
            choose_point(refined, trial=number)


def test_choose_point_within_the_drop_takes_refined_trials_at_their_own_accuracy(
    run: RunRecord,
) -> None:
    refined = with_refined(run, (4, 0.946, 20), (6, 0.9499, 60))
    assert choose_point(refined, max_drop=0.005) == refined.refined[0]  # 0.5 by the proxy
    assert choose_point(refined, max_drop=0.001) == refined.refined[1]  # not on the front
    assert choose_point(refined, max_drop=0.0) == run.trials[1]
    worse = with_refined(run, (2, 0.9, 200))  # stands for its trial also where it is worse
    assert choose_point(worse, max_drop=0.01).number == 1
    limited = dataclasses.replace(refined, limits=Limits(max_size_bytes=50))
    assert choose_point(limited, max_drop=0.02) == refined.refined[0]


def test_choose_point_says_when_nothing_is_within_the_drop() -> None:
    run = make_run(trial(0, 0.95, 1000), trial(1, 0.8, 10))
    with pytest.raises(NoPointError, match=r"keeps 94\.00% accuracy") as caught:
        choose_point(run, max_drop=0.01)
    assert caught.value.exit_code == 4
    with pytest.raises(NoPointError, match="no measured point"):
        choose_point(make_run())


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"manifest.json": '{"name": "my web app"}'}, "exists and is not a bundle"),
        ({"notes.txt": "mine"}, "exists and is not a bundle"),
    ],
)
def test_export_replaces_nothing_but_bundles(
    run: RunRecord, tmp_path: Path, files: dict[str, str], said: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    nobody: Any = None  # nothing is loaded
    with pytest.raises(InputError, match=said):
        export_point(run, run.trials[1], nobody, nobody, tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files


def test_export_keeps_a_file_that_was_added_to_a_bundle(run: RunRecord, tmp_path: Path) -> None:
    old = Path(__file__).parents[1] / "data" / "version_0_1" / "bundle"
    bundle = shutil.copytree(old, tmp_path / "bundle")
    (bundle / "labels.txt").write_text("cat, dog")
    nobody: Any = None
    with pytest.raises(InputError, match=r"holds labels\.txt") as caught:
        export_point(run, run.trials[1], nobody, nobody, bundle)
    assert "Move them elsewhere" in caught.value.hint
    assert (bundle / "labels.txt").read_text() == "cat, dog"
    assert (bundle / "model.acz").read_bytes() == (old / "model.acz").read_bytes()


def test_export_says_before_it_begins_that_a_point_loses_much(
    run: RunRecord, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nobody: Any = None
    for number in (2, 4):  # loses 1 point, 45 points
        with pytest.raises(AttributeError):  # nobody's evaluator
            export_point(run, run.trials[number], nobody, nobody, tmp_path / "new")
    assert [record.message for record in caplog.records] == [
        "trial 4 loses much: 45.00 points of accuracy on val against the original model."
    ]
