"""Trials as TensorBoard files: hyperparameters of each, and the run's progress over them."""

import contextlib
import importlib
import io
import os
import re
import time
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import IO, Any, Final

from autocompress.atomic_file import write_atomically
from autocompress.errors import AutocompressError, InputError, first_line
from autocompress.runs.tracking.tracker import METRICS, TrackedRun, TrackedTrial

_FILE: Final = "events.out.tfevents"
_VERSION: Final = "brain.Event:2"  # the only one there is
_FOLDER: Final = re.compile(r"trial_(\d+)")


class TensorboardEvents:
    """A `Tracker` for TensorBoard: a folder for each trial, and one file per session beside them.

    Args:
        where: A folder, in which the run gets one of its own; empty for `tensorboard` in the run
            folder.
        folder: The run folder.
    """

    def __init__(self, where: str, folder: Path) -> None:
        self._folder = (
            Path(where).expanduser() / folder.resolve().name if where else folder / "tensorboard"
        )
        self._path = self._folder

    def open(self, run: TrackedRun) -> Set[int]:
        """See `Tracker`."""
        note = self._folder / "study.txt"
        try:
            if note.exists() and note.read_text(encoding="utf-8").strip() != run.key:
                raise InputError(
                    f"{self._folder} must hold the trials of this run, but holds another one's.",
                    "Choose another folder with `track=tensorboard:FOLDER`.",
                )
            self._folder.mkdir(parents=True, exist_ok=True)
            write_atomically(note, f"{run.key}\n")
            # sorted by name: TensorBoard reads one file after the other
            self._path = self._folder / f"{_FILE}.{time.time_ns()}.{os.getpid()}.run"
            self._append([_event(file_version=_VERSION), _event(summary=_experiment(run))])
        except OSError as error:
            raise InputError(
                f"{self._folder} must be writable, but: {first_line(error)}.",
                "Choose another folder with `track=tensorboard:FOLDER`.",
            ) from error
        found = (_FOLDER.fullmatch(path.parent.name) for path in self._folder.glob(f"*/{_FILE}*"))
        return {int(match[1]) for match in found if match}

    def log(self, trial: TrackedTrial, progress: Mapping[str, float], step: int) -> None:
        """See `Tracker`. The file of a trial is there whole, or not at all."""
        content = io.BytesIO()
        events = [
            _event(file_version=_VERSION),
            _event(summary=_session(trial)),
            _event(summary=_scalars(trial.metrics), step=0),
            _event(summary=_session_end(trial)),
        ]
        with _guarding():
            _write(content, events)
            path = self._folder / f"trial_{trial.number:05d}" / f"{_FILE}.{trial.number}"
            write_atomically(path, content.getvalue())
            self._append([_event(summary=_scalars(progress), step=step)])

    def close(self) -> None:
        """See `Tracker`: every file is closed already."""

    def _append(self, events: list[Any]) -> None:
        with self._path.open("ab") as stream:
            _write(stream, events)


def _write(stream: IO[bytes], events: list[Any]) -> None:
    module = importlib.import_module("tensorboard.summary.writer.record_writer")
    writer = module.RecordWriter(stream)
    for event in events:
        writer.write(event.SerializeToString())


def _event(**fields: Any) -> Any:
    module = importlib.import_module("tensorboard.compat.proto.event_pb2")
    return module.Event(wall_time=time.time(), **fields)


def _scalars(figures: Mapping[str, float]) -> Any:
    module = importlib.import_module("tensorboard.compat.proto.summary_pb2")
    values = [module.Summary.Value(tag=name, simple_value=v) for name, v in figures.items()]
    return module.Summary(value=values)


def _hparams() -> Any:
    return importlib.import_module("tensorboard.plugins.hparams.summary_v2")


def _experiment(run: TrackedRun) -> Any:
    """Which hyperparameters and metrics there are, for all trials together."""
    hparams = _hparams()
    knobs = [hparams.HParam("label"), *(hparams.HParam(name) for name in run.knobs)]
    metrics = [hparams.Metric(name) for name in METRICS]
    return hparams.hparams_config_pb(hparams=knobs, metrics=metrics)


def _session(trial: TrackedTrial) -> Any:
    levels = {"label": trial.label, **trial.levels}
    return _hparams().hparams_pb(levels, trial_id=f"trial_{trial.number:05d}")


def _session_end(trial: TrackedTrial) -> Any:
    proto = importlib.import_module("tensorboard.plugins.hparams.plugin_data_pb2")
    api = importlib.import_module("tensorboard.plugins.hparams.api_pb2")
    metadata = importlib.import_module("tensorboard.plugins.hparams.metadata")
    summary = importlib.import_module("tensorboard.compat.proto.summary_pb2")
    status = api.STATUS_FAILURE if trial.state == "failed" else api.STATUS_SUCCESS
    data = proto.HParamsPluginData(
        session_end_info=proto.SessionEndInfo(status=status, end_time_secs=time.time())
    )
    value = summary.Summary.Value(
        tag=metadata.SESSION_END_INFO_TAG,
        metadata=metadata.create_summary_metadata(data),
        tensor=metadata.NULL_TENSOR,
    )
    return summary.Summary(value=[value])


@contextlib.contextmanager
def _guarding() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = first_line(error)
        raise AutocompressError(f"TensorBoard's files cannot be written: {reason}.") from error
