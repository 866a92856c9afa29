from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autocompress.run_record import RunRecord
from autocompress.runs.tracking.mlflow_runs import MlflowRuns
from autocompress.runs.tracking.tracker import TrackedRun, TrackedTrial
from autocompress.runs.tracking.tracking import Tracking
from tests.needs import need_extra

need_extra("mlflow")
import mlflow

Search = Callable[..., RunRecord]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path / "store"


def runs_in(store: Path) -> tuple[Any, dict[int, Any]]:
    """The run of the search, and those of its trials by number."""
    client = mlflow.tracking.MlflowClient(tracking_uri=store.as_uri())
    experiment = client.get_experiment_by_name("autocompress")
    found = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in found if run.data.tags["autocompress.trial"] == "all"]
    trials = [run for run in found if run is not parent]
    by_number = {int(run.data.tags["autocompress.trial"]): run for run in trials}
    assert len(by_number) == len(trials)
    return parent, by_number


def test_mlflow_holds_levels_figures_and_progress(search: Search, store: Path) -> None:
    run = search(tracking=Tracking({"mlflow": MlflowRuns(str(store), store)}, pytest.fail))
    parent, trials = runs_in(store)

    assert parent.info.run_name == run.name
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["objectives"] == "accuracy,size,latency"
    client = mlflow.tracking.MlflowClient(tracking_uri=store.as_uri())
    history = client.get_metric_history(parent.info.run_id, "hypervolume")
    assert [metric.step for metric in history] == [1, 2, 3, 4]
    assert history[-1].value == pytest.approx(run.hypervolume(run.front()))

    assert sorted(trials) == [0, 1, 2, 3]
    for trial in run.trials:
        tracked, written = TrackedTrial.of(run, trial), trials[trial.number]
        assert written.info.run_name == trial.label
        assert written.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert written.data.metrics == pytest.approx(dict(tracked.metrics))
        assert written.data.params == {k: str(v) for k, v in tracked.levels.items()}
    assert trials[2].info.status == "FAILED"
    assert trials[2].data.tags["reason"] == "export: no kernel"


def test_mlflow_writes_a_trial_anew_in_whose_middle_it_was_killed(
    search: Search, store: Path
) -> None:
    run = search(2, Tracking({"mlflow": MlflowRuns(str(store), store)}, pytest.fail))
    parent, trials = runs_in(store)
    client = mlflow.tracking.MlflowClient(tracking_uri=store.as_uri())
    client.update_run(trials[1].info.run_id, status="RUNNING")

    tracker = MlflowRuns(str(store), store)
    assert tracker.open(TrackedRun.of(run)) == {0}
    tracker.log(TrackedTrial.of(run, run.trials[1]), {}, 2)
    again, trials_again = runs_in(store)
    assert again.info.run_id == parent.info.run_id
    assert sorted(trials_again) == [0, 1]
    assert trials_again[1].info.run_id != trials[1].info.run_id


def test_mlflow_writes_beside_the_run_folders_unless_told_otherwise(
    search: Search, store: Path, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search(1, Tracking({"mlflow": MlflowRuns("", run_folder)}, pytest.fail))
    assert sorted(runs_in(tmp_path / "mlruns")[1]) == [0]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.as_uri())
    search(1, Tracking({"mlflow": MlflowRuns("", run_folder)}, pytest.fail))
    assert sorted(runs_in(store)[1]) == [0]


def test_mlflow_sends_nothing_of_its_own(search: Search, store: Path) -> None:
    import os

    MlflowRuns(str(store), store).open(TrackedRun.of(search(1)))
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
