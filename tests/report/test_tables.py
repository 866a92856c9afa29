import csv
import dataclasses
import io
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from autocompress.report import tables
from autocompress.run_record import RunRecord, TrialRecord

Factory = Callable[..., RunRecord]
REQUIRED = {
    "trial", "label", "role", "fidelity", "accuracy", "size_bytes", "latency_ms", "plan_digest",
    "latency_spread_ms", "baseline_latency_ms", "speedup", "compression", "macs", "n_params",
}  # fmt: skip


def test_front_json_has_exactly_the_promised_keys(make_run: Factory) -> None:
    document = tables.front_json(make_run(8))
    assert list(document) == ["run", "baseline", "controls", "points", "refined"]
    for point in [document["baseline"], *document["controls"], *document["points"]]:
        assert set(point) >= REQUIRED


def test_front_json_survives_strict_json_with_null_for_missing_latency(make_run: Factory) -> None:
    document = tables.front_json(make_run(8, objectives="accuracy,size"))
    again = json.loads(json.dumps(document, allow_nan=False))
    assert again == document
    assert all(p["latency_ms"] is None and p["speedup"] is None for p in again["points"])


def test_front_json_of_an_empty_run_is_null_and_empty_lists(make_run: Factory) -> None:
    document = tables.front_json(make_run(0, with_baseline=False, with_controls=False))
    assert document.pop("run") == "resnet20"
    assert document == {"baseline": None, "controls": [], "points": [], "refined": []}


def test_front_json_keeps_refined_trials_apart(make_run: Factory) -> None:
    run = make_run(8)
    trial = run.front()[1]
    assert trial.measurement is not None
    figures = dataclasses.replace(trial.measurement, fidelity=2, accuracy=0.99)
    refined = dataclasses.replace(trial, label="it, refined", measurement=figures)
    document = tables.front_json(dataclasses.replace(run, refined=(refined,)))
    (point,) = document.pop("refined")
    assert document.items() <= tables.front_json(run).items()
    assert (point["trial"], point["label"], point["accuracy"]) == (
        trial.number,
        "it, refined",
        0.99,
    )
    assert set(point) >= REQUIRED


def test_front_json_compression_is_the_baseline_over_the_size(make_run: Factory) -> None:
    document = tables.front_json(make_run(8))
    for point in document["points"]:
        assert point["compression"] == pytest.approx(1_079_000 / point["size_bytes"])


def test_trials_table_holds_every_trial_and_marks_the_front(make_run: Factory) -> None:
    run = make_run(9, n_failed=2)
    frame = tables.trials_table(run)
    assert frame["trial"].tolist() == [t.number for t in run.trials]
    assert set(frame.loc[frame["on_front"], "trial"]) == {t.number for t in run.front()}
    failed = frame[frame["state"] == "failed"]
    assert failed["reason"].tolist() == ["timeout: no answer after 600 s"] * 2
    assert failed["size_bytes"].isna().all()
    assert str(frame["size_bytes"].dtype) == "Int64"


def test_front_table_is_sorted_by_accuracy(make_run: Factory) -> None:
    accuracy = tables.front_table(make_run(30))["accuracy"]
    assert accuracy.is_monotonic_decreasing


def test_tables_of_an_empty_run_keep_their_columns(make_run: Factory) -> None:
    run = make_run(0, with_baseline=False, with_controls=False, n_failed=0)
    assert list(tables.trials_table(run)) == list(tables.trials_table(make_run(1)))
    assert tables.hypervolume_history(run).empty


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_csv_text_defuses_text_that_starts_a_formula(start: str) -> None:
    frame = pd.DataFrame({"label": [f"{start}1+1", "fine"], "change": [-1.5, 2.0]})
    rows = list(csv.reader(io.StringIO(tables.csv_text(frame), newline="")))
    shown = start.replace("\r", " ")
    assert rows == [["label", "change"], [f"'{shown}1+1", "-1.5"], ["fine", "2.0"]]


def test_csv_text_leaves_the_frame_as_it_was() -> None:
    frame = pd.DataFrame({"label": ["=1"]})
    tables.csv_text(frame)
    assert frame["label"].tolist() == ["=1"]


def test_write_csv_can_be_read_back(make_run: Factory, tmp_path: Path) -> None:
    frame = tables.trials_table(make_run(5))
    tables.write_csv(frame, tmp_path / "trials.csv")
    again = pd.read_csv(tmp_path / "trials.csv")
    assert list(again) == list(frame)
    np.testing.assert_array_equal(again["accuracy"], frame["accuracy"])


@pytest.mark.parametrize("objectives", ["accuracy,size", "size,accuracy,latency"])
def test_hypervolume_history_equals_hypervolume_from_scratch(
    make_run: Factory, objectives: str
) -> None:
    run = make_run(25, objectives=objectives, seed=5)
    tuned = tuple(t for t in run.complete if t.measurement and t.measurement.fidelity == 1)
    assert run.baseline is not None
    points = np.array([relative(run, trial) for trial in tuned])
    slack = 0.0 if objectives == "accuracy,size" else 1.0
    reference = [1.0 if o.name == "accuracy" else slack for o in run.objectives]
    of_baseline = union_of_boxes(np.zeros((1, len(reference))), reference)
    assert of_baseline == slack
    history = tables.hypervolume_history(run)
    for i, volume in enumerate(history["hypervolume"]):
        everything = union_of_boxes(np.vstack([points[: i + 1], 0 * points[:1]]), reference)
        assert volume == pytest.approx(everything - of_baseline, abs=1e-9)
    assert history["trial"].tolist() == [t.number for t in tuned]
    assert history["hypervolume"].iloc[-1] > 1.0


def relative(run: RunRecord, trial: TrialRecord) -> list[float]:
    """What losses of accuracy take off, and binary logarithms of relative costs."""
    assert run.baseline is not None
    base, own = run.baseline.measurement, trial.measurement
    assert base is not None
    assert own is not None
    values = []
    for objective in run.objectives:
        before, after = getattr(base, objective.field), getattr(own, objective.field)
        is_accuracy = objective.name == "accuracy"
        lost = math.log1p(max(0.0, before - after) / 0.0025) / math.log(17.0)
        values.append(lost if is_accuracy else math.log2(after / before))
    return values


def union_of_boxes(points: NDArray[np.float64], reference: list[float]) -> float:
    """Volume between points and a reference: the sum of the cells of their grid that one covers."""
    edges = [
        np.unique(np.append(column[column < end], end))
        for column, end in zip(points.T, reference, strict=True)
    ]
    corners = np.meshgrid(*(edge[:-1] for edge in edges), indexing="ij")
    volumes = np.prod(np.meshgrid(*(np.diff(edge) for edge in edges), indexing="ij"), axis=0)
    is_covered = np.zeros(volumes.shape, dtype=bool)
    for point in points:
        is_covered |= np.all([c >= x for c, x in zip(corners, point, strict=True)], axis=0)
    return float(volumes[is_covered].sum())


def test_hypervolume_history_starts_at_zero_and_never_falls(make_run: Factory) -> None:
    run = make_run(60)
    volumes = tables.hypervolume_history(run)["hypervolume"]
    assert volumes.iloc[0] == 0.0
    assert volumes.is_monotonic_increasing
    best = np.min([relative(run, trial) for trial in run.comparable], axis=0)
    assert 0.0 < volumes.iloc[-1] < np.prod(1.0 - best) - 1.0


def test_controls_hypervolume_is_what_a_run_of_controls_reaches(make_run: Factory) -> None:
    run = make_run(0)
    final = tables.hypervolume_history(run)["hypervolume"].iloc[-1]
    assert tables.controls_hypervolume(run) == pytest.approx(final)
    assert tables.controls_hypervolume(make_run(3, with_controls=False)) is None
