"""Trials as MLflow runs, children of one run for the whole search."""

import contextlib
import hashlib
import importlib
import os
import re
import time
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any, Final

from autocompress.errors import AutocompressError, InputError, first_line
from autocompress.runs.tracking.tracker import TrackedRun, TrackedTrial

_EXPERIMENT: Final = "autocompress"
_STUDY, _TRIAL = "autocompress.study", "autocompress.trial"
# Nothing is sent but what was asked for; a server that is away must not hold a search up for
# minutes; and whoever names a folder wants one.
_ENVIRONMENT: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ALLOW_FILE_STORE": "true",
}
_FORBIDDEN: Final = re.compile(r"[^\w. :-]")
_CREDENTIALS: Final = re.compile(r"//[^/@\s]+@")
_MOST_CHARS: Final = 250
_MOST_TEXT: Final = 5000
_BATCH: Final = 100
_PAGE: Final = 1000


class MlflowRuns:
    """A `Tracker` for MLflow.

    Args:
        where: A tracking URI or a folder; empty for what MLFLOW_TRACKING_URI says, or `mlruns`
            beside the run folders.
        folder: The run folder.
    """

    def __init__(self, where: str, folder: Path) -> None:
        beside = folder.parent / "mlruns"
        self._uri = _as_uri(where or os.environ.get("MLFLOW_TRACKING_URI") or str(beside))
        self._client: Any
        self._entities: Any
        self._experiment = self._parent = self._study = ""

    def open(self, run: TrackedRun) -> Set[int]:
        """See `Tracker`."""
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        try:
            with self._guarding():
                self._entities = importlib.import_module("mlflow.entities")
                tracking = importlib.import_module("mlflow.tracking")
                self._client = tracking.MlflowClient(tracking_uri=self._uri)
                self._study = run.key
                self._experiment = self._find_experiment()
                self._parent = self._find_parent(run)
                return self._known_trials()
        except AutocompressError as error:
            raise InputError(error.message, "Check the URI of `track=mlflow:URI`.") from error

    def log(self, trial: TrackedTrial, progress: Mapping[str, float], step: int) -> None:
        """See `Tracker`. A run counts as written when it has ended."""
        with self._guarding():
            tags = {
                _STUDY: self._study,
                _TRIAL: str(trial.number),
                "mlflow.parentRunId": self._parent,
                "role": trial.role,
                "state": trial.state,
                **({"reason": trial.reason[:_MOST_TEXT]} if trial.reason else {}),
            }
            child = self._client.create_run(self._experiment, tags=tags, run_name=trial.label)
            run_id = child.info.run_id
            names = _unique([_param_name(knob) for knob in trial.levels])
            params = [
                self._entities.Param(name, str(level))
                for name, level in zip(names, trial.levels.values(), strict=True)
            ]
            for start in range(0, len(params), _BATCH):
                self._client.log_batch(run_id, params=params[start : start + _BATCH])
            self._client.log_batch(run_id, metrics=self._metrics(trial.metrics, 0))
            status = "FAILED" if trial.state == "failed" else "FINISHED"
            self._client.set_terminated(run_id, status=status)
            self._client.log_batch(self._parent, metrics=self._metrics(progress, step))

    def close(self) -> None:
        """See `Tracker`."""
        with self._guarding():
            self._client.set_terminated(self._parent)

    def _find_experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _EXPERIMENT)
        found = self._client.get_experiment_by_name(name)
        return str(self._client.create_experiment(name) if found is None else found.experiment_id)

    def _find_parent(self, run: TrackedRun) -> str:
        wanted = f"tags.`{_STUDY}` = '{self._study}' and tags.`{_TRIAL}` = 'all'"
        for found in self._client.search_runs([self._experiment], wanted, max_results=1):
            self._client.update_run(found.info.run_id, status="RUNNING")
            return str(found.info.run_id)
        tags = {_STUDY: self._study, _TRIAL: "all", **run.tags}
        made = self._client.create_run(self._experiment, tags=tags, run_name=run.name)
        return str(made.info.run_id)

    def _known_trials(self) -> Set[int]:
        """Numbers that were written in whole; what was interrupted in the middle is deleted."""
        wanted, token, known = f"tags.`{_STUDY}` = '{self._study}'", None, set()
        while True:
            page = self._client.search_runs(
                [self._experiment], wanted, max_results=_PAGE, page_token=token
            )
            for run in page:
                number = run.data.tags[_TRIAL]
                if not number.isdecimal():
                    continue
                if run.info.status == "RUNNING":
                    self._client.delete_run(run.info.run_id)
                else:
                    known.add(int(number))
            token = page.token
            if not token:
                return known

    def _metrics(self, figures: Mapping[str, float], step: int) -> list[Any]:
        now_ms = int(time.time() * 1000)
        return [self._entities.Metric(k, v, now_ms, step) for k, v in figures.items()]

    @contextlib.contextmanager
    def _guarding(self) -> Iterator[None]:
        """Turn what MLflow raises into one line, without what a URI may hold of a password."""
        try:
            yield
        except Exception as error:  # MLflow raises just that where a folder is gone
            reason = _CREDENTIALS.sub("//", first_line(error))
            raise AutocompressError(f"MLflow cannot be written to: {reason}.") from error


def _as_uri(where: str) -> str:
    """A folder as a file URI; what is a URI already as it is."""
    is_uri = "://" in where or where.startswith(("databricks", "file:", "uc:"))
    return where if is_uri else Path(where).expanduser().absolute().as_uri()


def _param_name(knob: str) -> str:
    """A knob's name as MLflow allows it."""
    name = _FORBIDDEN.sub("_", knob)
    if len(name) <= _MOST_CHARS:
        return name
    return f"{name[: _MOST_CHARS - 9]}_{hashlib.sha256(knob.encode()).hexdigest()[:8]}"


def _unique(names: list[str]) -> list[str]:
    """Names of which several became the same, told apart by a number.

    >>> _unique(["a", "b", "a", "a"])
    ['a', 'b', 'a_2', 'a_3']
    """
    counts: dict[str, int] = {}
    made = []
    for name in names:
        counts[name] = counts.get(name, 0) + 1
        made.append(name if counts[name] == 1 else f"{name}_{counts[name]}")
    return made
