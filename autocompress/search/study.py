"""The study: one SQLite file that holds everything a run found. Knows no torch."""

import contextlib
import dataclasses
import json
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock
import optuna
from optuna.trial import FrozenTrial, TrialState

from autocompress.atomic_file import write_atomically
from autocompress.errors import (
    AutocompressError,
    InputError,
    RunLockedError,
    StudyMismatchError,
    first_line,
)
from autocompress.measurement import Fidelity, Measurement
from autocompress.objective import Direction, parse_objectives
from autocompress.run_record import Role, RunRecord
from autocompress.search.records import record_of
from autocompress.search.sampler import distributions_of
from autocompress.search.storage import DATABASE_ERRORS, FORMAT, STUDY, open_storage, unreadable
from autocompress.space.search_space import SearchSpace


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A trial that waits to be evaluated.

    Attributes:
        number: Trial number.
        levels: Knob name -> level index.
        fidelity: Training to put behind it.
        label: What tables call it.
        attempts: How often it was started, this time included.
    """

    number: int
    levels: Mapping[str, int]
    fidelity: Fidelity
    label: str
    attempts: int


class Study:
    """A run folder opened for driving: the only writer of its database.

    Use as a context manager: it holds the folder's lock.

    Args:
        folder: The run folder; created if missing.
        space: The knobs.
        objectives: Names, comma-separated.
        identity: What must not change between sessions: seed, settings, fingerprints. JSON.
        info: What else describes the run: versions, hardware. JSON.

    Raises:
        InputError: If the folder cannot be written.
        RunLockedError: If another process drives this run.
        StudyMismatchError: If the folder holds another study; names what differs.
    """

    def __init__(
        self,
        folder: Path,
        space: SearchSpace,
        objectives: str,
        identity: Mapping[str, Any],
        info: Mapping[str, Any],
    ) -> None:
        self.folder = folder
        self.space = space
        self.objectives = parse_objectives(objectives)
        self._identity = {**identity, "objectives": objectives, "space": space.fingerprint}
        self._info = dict(info)
        self._lock = filelock.FileLock(folder / ".lock", timeout=0)
        self._study: optuna.Study

    def __enter__(self) -> "Study":
        """Lock the folder, open or create the study, refuse one made for something else."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except filelock.Timeout:
            raise _locked(self.folder) from None
        except OSError as error:
            raise InputError(
                f"The run folder {self.folder} must be writable, but: {first_line(error)}.",
                "Choose another place with --results FOLDER.",
            ) from error
        try:
            self._open()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Release the folder."""
        self._lock.release()

    def _open(self) -> None:
        (self.folder / ".driver.json").write_text(
            json.dumps({"host": socket.gethostname(), "pid": os.getpid()}), encoding="utf-8"
        )
        path = self.folder / "study.db"
        with self._guard():
            self._open_study(path)

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        """Turn what a database raises into one line.

        Raises:
            StudyMismatchError: If the database is damaged.
            AutocompressError: If it cannot be written, say because the disk is full.
        """
        try:
            yield
        except DATABASE_ERRORS as error:
            cause = first_line(error.__cause__ or error)
            if "full" in cause or "readonly" in cause or "I/O" in cause or "locked" in cause:
                raise AutocompressError(
                    f"The study {self.folder / 'study.db'} cannot be written: {cause}.",
                    "Make room, then repeat the command: finished trials are kept.",
                ) from error
            raise unreadable(self.folder / "study.db", error) from error

    def _open_study(self, path: Path) -> None:
        is_new = not path.exists()
        self._study = optuna.create_study(
            study_name=STUDY,
            storage=open_storage(path),
            directions=self.directions,
            load_if_exists=True,
        )
        stored = self._study.user_attrs
        if "identity" not in stored:
            if not is_new and self._study.get_trials(deepcopy=False):
                raise StudyMismatchError(f"The study {path} was not made by autocompress.")
            for key, value in self._attributes().items():
                self._study.set_user_attr(key, value)
        else:
            _check_identity(path, stored["identity"], json.loads(json.dumps(self._identity)))
            # Data may have moved and versions changed since; when it began stays.
            moved = {**self._info, "started": stored["info"].get("started")}
            self._study.set_user_attr("info", moved)
        self._write_info()

    def _attributes(self) -> dict[str, Any]:
        # `identity` is written last: a study without it was interrupted while being made.
        return {
            "format": FORMAT,
            "knobs": [dataclasses.asdict(knob) for knob in self.space.knobs],
            "methods": [dataclasses.asdict(method) for method in self.space.methods],
            "objectives": [objective.name for objective in self.objectives],
            "info": self._info,
            "identity": self._identity,
        }

    def _write_info(self) -> None:
        """Write `run.json`, the readable view of what the study says about itself."""
        attributes = self._study.user_attrs
        view = {**attributes["info"], **attributes["identity"], "format": FORMAT}
        write_atomically(self.folder / "run.json", json.dumps(view, indent=2) + "\n")

    @property
    def directions(self) -> list[Direction]:
        """`maximize` or `minimize` per objective."""
        return [objective.direction for objective in self.objectives]

    def n_finished(self) -> int:
        """Trials that are complete or failed: what a budget counts."""
        return sum(t.state.is_finished() for t in self._study.get_trials(deepcopy=False))

    def finished(self) -> list[FrozenTrial]:
        """Complete trials of fidelity 1, for samplers."""
        trials = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return [trial for trial in trials if trial.user_attrs["fidelity"] == 1]

    def failed(self) -> list[dict[str, int]]:
        """Levels of failed trials."""
        trials = self._study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
        return [{name: int(level) for name, level in trial.params.items()} for trial in trials]

    def interrupted(self) -> list[Job]:
        """Trials that a dead driver left running, each counted as started once more."""
        jobs = []
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if "measurement" in trial.user_attrs:
                self._tell(trial.number, Measurement.from_json(trial.user_attrs["measurement"]))
                continue
            attempts = trial.user_attrs.get("attempts", 1) + 1
            self._set(trial.number, "attempts", attempts)
            jobs.append(_job(trial, attempts))
        return jobs

    def add(self, levels: Mapping[str, int], role: Role, label: str, fidelity: Fidelity) -> Job:
        """Write a new running trial, in one transaction."""
        trial = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=dict(levels),
            distributions=distributions_of(self.space),
            user_attrs={
                "role": role,
                "label": label,
                "fidelity": fidelity,
                "attempts": 1,
                "plan": self.space.decode(levels).to_json(),
            },
        )
        with self._guard():
            self._study.add_trial(trial)
        return _job(self._study.get_trials(deepcopy=False)[-1], attempts=1)

    def give_back(self, job: Job) -> None:
        """Forget that a trial was started: the user stopped it, it did not fail."""
        self._set(job.number, "attempts", job.attempts - 1)

    def complete(self, job: Job, measurement: Measurement) -> None:
        """Write a result; safe against death between its two transactions."""
        self._set(job.number, "measurement", measurement.to_json())
        self._tell(job.number, measurement)

    def fail(self, job: Job, reason: str) -> None:
        """Mark a trial as failed, with its reason in one line."""
        self._set(job.number, "reason", reason)
        with self._guard():
            self._study.tell(job.number, state=TrialState.FAIL)

    def record(self) -> RunRecord:
        """The run as plain data."""
        return record_of(self.folder, self._study)

    def _tell(self, number: int, measurement: Measurement) -> None:
        values = [getattr(measurement, objective.field) for objective in self.objectives]
        with self._guard():
            self._study.tell(number, values)

    def _set(self, number: int, key: str, value: Any) -> None:
        trial = self._study.get_trials(deepcopy=False)[number]
        with self._guard():
            self._study._storage.set_trial_user_attr(trial._trial_id, key, value)


def _job(trial: FrozenTrial, attempts: int) -> Job:
    return Job(
        number=trial.number,
        levels={name: int(level) for name, level in trial.params.items()},
        fidelity=trial.user_attrs["fidelity"],
        label=trial.user_attrs["label"],
        attempts=attempts,
    )


def _check_identity(path: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    then, now = _leaves(stored), _leaves(wanted)
    differing = [key for key in sorted({**then, **now}) if then.get(key) != now.get(key)]
    if differing:
        what = "; ".join(
            f"{key}: {_short(then.get(key))} then, {_short(now.get(key))} now" for key in differing
        )
        raise StudyMismatchError(
            f"The study {path} was made for something else: {what}.",
            "Repeat the first command to resume it, or start a new run with --run NAME.",
        )


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping as one level of dotted keys."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            leaves.update(_leaves(value, f"{prefix}{key}."))
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _locked(folder: Path) -> RunLockedError:
    try:
        holder = json.loads((folder / ".driver.json").read_text(encoding="utf-8"))
        who = f"process {holder['pid']} on {holder['host']}"
    except (OSError, ValueError, KeyError):
        who = "another process"
    message = f"The run {folder} is driven by {who} at the moment."
    return RunLockedError(message, "Wait until it ends, or start another run with --run NAME.")
