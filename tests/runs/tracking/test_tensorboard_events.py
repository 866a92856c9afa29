from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autocompress.run_record import RunRecord
from autocompress.runs.tracking.tensorboard_events import TensorboardEvents
from autocompress.runs.tracking.tracker import METRICS, TrackedRun, TrackedTrial
from autocompress.runs.tracking.tracking import Tracking
from tests.needs import need_extra

need_extra("tensorboard")
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

Search = Callable[..., RunRecord]


def read(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder)).Reload()


def hparams_of(found: EventAccumulator, tag: str) -> Any:
    return HParamsPluginData.FromString(found.PluginTagToContent(metadata.PLUGIN_NAME)[tag])


def track(search: Search, where: str, folder: Path, budget: int) -> RunRecord:
    return search(budget, Tracking({"it": TensorboardEvents(where, folder)}, pytest.fail))


def test_tensorboard_holds_levels_figures_and_progress(search: Search, run_folder: Path) -> None:
    run = track(search, "", run_folder, 4)
    found = read(run_folder / "tensorboard")
    points = found.Scalars("hypervolume")
    assert [point.step for point in points] == [1, 2, 3, 4]
    assert points[-1].value == pytest.approx(run.hypervolume(run.front()), rel=1e-6)
    experiment = hparams_of(found, metadata.EXPERIMENT_TAG).experiment
    assert [info.name for info in experiment.hparam_infos] == ["label", *TrackedRun.of(run).knobs]
    assert [info.name.tag for info in experiment.metric_infos] == list(METRICS)

    for trial in run.trials:
        written = read(run_folder / "tensorboard" / f"trial_{trial.number:05d}")
        tracked = TrackedTrial.of(run, trial)
        assert set(written.Tags()["scalars"]) == set(tracked.metrics)
        for name, value in tracked.metrics.items():
            assert written.Scalars(name)[0].value == pytest.approx(value, rel=1e-6)
        start = hparams_of(written, metadata.SESSION_START_INFO_TAG).session_start_info
        told = {name: v.number_value or v.string_value for name, v in start.hparams.items()}
        assert told == {"label": trial.label, **tracked.levels}
        end = hparams_of(written, metadata.SESSION_END_INFO_TAG).session_end_info
        assert (end.status == 2) == (trial.state == "failed")  # STATUS_FAILURE


def test_tensorboard_goes_on_where_an_earlier_session_ended(
    search: Search, run_folder: Path
) -> None:
    track(search, "", run_folder, 2)
    files = {
        path: path.stat().st_mtime_ns for path in (run_folder / "tensorboard").glob("trial_*/*")
    }
    track(search, "", run_folder, 4)
    assert {path: path.stat().st_mtime_ns for path in files} == files
    steps = sorted(point.step for point in _points(run_folder / "tensorboard"))
    assert steps == [1, 2, 3, 4]


def test_tensorboard_gives_a_run_a_folder_of_its_own(
    search: Search, run_folder: Path, tmp_path: Path
) -> None:
    track(search, str(tmp_path / "boards"), run_folder, 1)
    assert (tmp_path / "boards" / "run" / "trial_00000").is_dir()
    assert not (run_folder / "tensorboard").exists()


def _points(folder: Path) -> list[Any]:
    """Of every session's file: an accumulator may drop what looks like a restart."""
    points = []
    for path in folder.glob("events*"):
        points += EventAccumulator(str(path)).Reload().Scalars("hypervolume")
    return points
