"""Every tracker passes the same tests."""

import contextlib
import dataclasses
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from autocompress.errors import AutocompressError, InputError
from autocompress.run_record import RunRecord
from autocompress.runs.tracking.registry import TRACKERS, make_trackers
from autocompress.runs.tracking.tracker import TrackedRun, TrackedTrial, Tracker, progress_of
from autocompress.runs.tracking.tracking import Tracking
from tests.needs import need_extra

Search = Callable[..., RunRecord]


@pytest.fixture(params=sorted(TRACKERS))
def make(request: pytest.FixtureRequest, run_folder: Path, tmp_path: Path) -> Callable[[], Tracker]:
    """A fresh tracker that writes to one place."""
    need_extra(request.param)
    spec = f"{request.param}:{tmp_path / 'tracked'}"

    def again() -> Tracker:
        return make_trackers([spec], run_folder)[request.param]

    return again


def test_tracker_knows_the_trials_of_a_search_when_it_is_resumed(
    make: Callable[[], Tracker], search: Search
) -> None:
    warnings: list[str] = []
    run = search(3, Tracking({"it": make()}, warnings.append))
    assert make().open(TrackedRun.of(run)) == {0, 1, 2}
    search(4, Tracking({"it": make()}, warnings.append))
    assert make().open(TrackedRun.of(run)) == {0, 1, 2, 3}
    assert warnings == []


def test_tracker_does_not_take_another_study_for_this_one(
    make: Callable[[], Tracker], search: Search
) -> None:
    run = search(2, Tracking({"it": make()}, pytest.fail))
    other = dataclasses.replace(run, info={**run.info, "seed": 7})
    known: object = "refused"
    with contextlib.suppress(InputError):  # where one place is for one study
        known = make().open(TrackedRun.of(other))
    assert known in (set(), "refused")


def test_tracker_says_in_one_line_that_it_cannot_write(
    make: Callable[[], Tracker], search: Search, tmp_path: Path
) -> None:
    (tmp_path / "tracked").write_text("a file where a folder should be")
    with pytest.raises(InputError) as caught:
        make().open(TrackedRun.of(search(1)))
    assert "\n" not in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("name", ["a", "trial", "knob"])
def test_tracker_takes_hostile_names(
    make: Callable[[], Tracker], search: Search, name: str
) -> None:
    run = search(1)
    tracked, trial = TrackedRun.of(run), TrackedTrial.of(run, run.trials[0])
    hostile = f"{name}/../../<script>\u202e#{'x' * 400}"
    tracker = make()
    tracker.open(dataclasses.replace(tracked, knobs={hostile: (1.0, 2.0)}))
    trial = dataclasses.replace(trial, label=hostile, levels={hostile: 2.0, f"{hostile}!": "b"})
    tracker.log(trial, progress_of(run, {0}), 1)
    tracker.close()
    assert make().open(tracked) == {0}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mlflaw", "Unknown tracker 'mlflaw'"),
        (":x", "Unknown tracker ''"),
        ("wandb:here", "Unknown tracker 'wandb'"),
    ],
)
def test_make_trackers_names_those_there_are(spec: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make_trackers([spec], tmp_path)
    assert "Choose from: mlflow, tensorboard." in caught.value.hint


@pytest.mark.parametrize("name", sorted(TRACKERS))
def test_make_trackers_says_how_to_install_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    with pytest.raises(InputError, match=f"`track={name}` needs the package") as caught:
        make_trackers([name], tmp_path)
    assert caught.value.hint == f"Install it with: pip install 'autocompress[{name}]'"


def test_mlflow_server_that_is_away_is_said_without_its_password(
    search: Search, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_extra("mlflow")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spec = f"mlflow:http://user:s3cret@127.0.0.1:{port}"
    (tracker,) = make_trackers([spec], run_folder).values()
    with pytest.raises(InputError) as caught:
        tracker.open(TrackedRun.of(search(1)))
    assert "MLflow cannot be written to" in caught.value.message
    assert "s3cret" not in str(caught.value)


def test_tracker_that_is_lost_in_the_middle_raises_one_line(
    make: Callable[[], Tracker], search: Search, tmp_path: Path
) -> None:
    run = search(1)
    tracker = make()
    tracker.open(TrackedRun.of(run))
    for path in sorted((tmp_path / "tracked").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (tmp_path / "tracked").rmdir()
    (tmp_path / "tracked").write_text("the disk is gone")
    with pytest.raises(AutocompressError, match=r"cannot be written|must be writable") as caught:
        tracker.log(TrackedTrial.of(run, run.trials[0]), {}, 1)
    assert "\n" not in caught.value.message
