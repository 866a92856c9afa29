import dataclasses
from pathlib import Path

import pytest

from autocompress.plan import CompressionPlan
from autocompress.study.result_files import validated_trials, validation_file
from tests.builders import make_measurement, make_trial

MEASURED = make_measurement()
TRIAL = make_trial(3, MEASURED)


def write(folder: Path, *results: tuple[float, float | None]) -> None:
    """Re-trainings of trial 3: epochs and accuracy, None for a failed one."""
    entries = {}
    for i, (epochs, accuracy) in enumerate(results):
        measured = None if accuracy is None else dataclasses.replace(MEASURED, accuracy=accuracy)
        entries[str(i)] = {
            "key": f"{i:064x}", "trial": 3, "plan_digest": TRIAL.plan.digest, "epochs": epochs,
            "seed": 0, "processor": "x", "reason": None,
            "measurement": None if measured is None else measured.to_json(),
        }  # fmt: skip
    file = validation_file(folder)
    with file.locked():
        file.write(entries)


def test_validated_trials_are_those_trained_longest(tmp_path: Path) -> None:
    write(tmp_path, (20.0, 0.91), (40.0, 0.93), (10.0, 0.95), (80.0, None))
    (found,) = validated_trials(tmp_path, (TRIAL,))
    assert found.label == "trial 3, 40 epochs"
    assert found.measurement is not None
    assert found.measurement.accuracy == 0.93


def test_validated_trials_are_none_without_a_file_or_for_another_plan(tmp_path: Path) -> None:
    assert validated_trials(tmp_path, (TRIAL,)) == ()
    write(tmp_path, (20.0, 0.91))
    other = dataclasses.replace(TRIAL, plan=CompressionPlan(pruning_ratios={"a": 0.5}))
    assert validated_trials(tmp_path, (other,)) == ()


@pytest.mark.parametrize("text", ["{", '{"format": 1, "results": [1]}'])
def test_validated_trials_are_none_if_the_file_is_damaged(tmp_path: Path, text: str) -> None:
    (tmp_path / "validation.json").write_text(text)
    assert validated_trials(tmp_path, (TRIAL,)) == ()
