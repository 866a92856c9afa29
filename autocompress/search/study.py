"""The study: one SQLite file that holds everything a run found. Knows no torch."""

import dataclasses
import json
import os
import socket
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import filelock
import optuna
import sqlalchemy
from optuna.trial import FrozenTrial, TrialState

from autocompress.errors import InputError, RunLockedError, StudyMismatchError, first_line
from autocompress.measurement import Fidelity, Measurement
from autocompress.objective import Direction, parse_objectives
from autocompress.plan import CompressionPlan
from autocompress.run_record import Role, RunRecord, State, TrialRecord
from autocompress.search.sampler import distributions_of
from autocompress.space.search_space import Knob, SearchSpace

FORMAT = 1
_STUDY = "autocompress"
_BUSY_S = 30
_STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "running",
    TrialState.PRUNED: "failed",
}
optuna.logging.set_verbosity(optuna.logging.WARNING)


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
        is_new = not path.exists()
        try:
            storage = _open_storage(path)
            self._study = optuna.create_study(
                study_name=_STUDY,
                storage=storage,
                directions=[objective.direction for objective in self.objectives],
                load_if_exists=True,
            )
        except (sqlalchemy.exc.SQLAlchemyError, sqlite3.Error) as error:
            raise _unreadable(path, error) from error
        stored = self._study.user_attrs
        if "identity" not in stored:
            if not is_new and self._study.get_trials(deepcopy=False):
                raise StudyMismatchError(f"The study {path} was not made by autocompress.")
            for key, value in self._attributes().items():
                self._study.set_user_attr(key, value)
        else:
            _check_identity(path, stored["identity"], json.loads(json.dumps(self._identity)))
        self._write_info()

    def _attributes(self) -> dict[str, Any]:
        # `identity` is written last: a study without it was interrupted while being made.
        return {
            "format": FORMAT,
            "knobs": [dataclasses.asdict(knob) for knob in self.space.knobs],
            "objectives": [objective.name for objective in self.objectives],
            "info": self._info,
            "identity": self._identity,
        }

    def _write_info(self) -> None:
        """Write `run.json`, the readable view of what the study says about itself."""
        attributes = self._study.user_attrs
        view = {**attributes["info"], **attributes["identity"], "format": FORMAT}
        temporary = self.folder / ".run.json.tmp"
        temporary.write_text(json.dumps(view, indent=2) + "\n", encoding="utf-8")
        temporary.replace(self.folder / "run.json")

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
        self._study.tell(job.number, state=TrialState.FAIL)

    def record(self) -> RunRecord:
        """The run as plain data."""
        return _record(self.folder, self._study)

    def _tell(self, number: int, measurement: Measurement) -> None:
        values = [getattr(measurement, objective.field) for objective in self.objectives]
        self._study.tell(number, values)

    def _set(self, number: int, key: str, value: Any) -> None:
        trial = self._study.get_trials(deepcopy=False)[number]
        self._study._storage.set_trial_user_attr(trial._trial_id, key, value)


def load_run(folder: Path) -> RunRecord:
    """Read a run folder without locking it.

    Raises:
        InputError: If the folder holds no study.
        StudyMismatchError: If its study is damaged or was not made by this version.
    """
    path = folder / "study.db"
    if not path.is_file():
        raise InputError(f"The run folder {folder} holds no study.db.", "Run a search first.")
    try:
        study = optuna.load_study(study_name=_STUDY, storage=_open_storage(path))
        if study.user_attrs.get("format") != FORMAT:
            raise StudyMismatchError(
                f"The study {path} must have format {FORMAT}, "
                f"but has {study.user_attrs.get('format')}."
            )
        return _record(folder, study)
    except (sqlalchemy.exc.SQLAlchemyError, sqlite3.Error, KeyError) as error:
        raise _unreadable(path, error) from error


def _open_storage(path: Path) -> optuna.storages.RDBStorage:
    """SQLite in write-ahead mode: readers never block the driver, and a kill loses nothing."""
    with sqlite3.connect(path, timeout=_BUSY_S) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    url = sqlalchemy.URL.create("sqlite", database=str(path)).render_as_string()
    storage = optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": _BUSY_S}})
    sqlalchemy.event.listen(storage.engine, "connect", _set_pragmas)
    storage.engine.dispose()  # connections opened before the listener was there
    return storage


def _set_pragmas(connection: Any, _: object) -> None:
    connection.execute("PRAGMA synchronous=NORMAL")


def _job(trial: FrozenTrial, attempts: int) -> Job:
    return Job(
        number=trial.number,
        levels={name: int(level) for name, level in trial.params.items()},
        fidelity=trial.user_attrs["fidelity"],
        label=trial.user_attrs["label"],
        attempts=attempts,
    )


def _record(folder: Path, study: optuna.Study) -> RunRecord:
    attributes = study.user_attrs
    return RunRecord(
        name=folder.resolve().name,
        folder=folder,
        objectives=parse_objectives(attributes["objectives"]),
        knobs=tuple(
            Knob(**{**k, "targets": tuple(k["targets"]), "levels": tuple(k["levels"])})
            for k in attributes["knobs"]
        ),
        trials=tuple(_trial_record(trial) for trial in study.get_trials(deepcopy=False)),
        info={**attributes["info"], **attributes["identity"]},
    )


def _trial_record(trial: FrozenTrial) -> TrialRecord:
    attributes = trial.user_attrs
    is_complete = trial.state == TrialState.COMPLETE
    return TrialRecord(
        number=trial.number,
        role=attributes["role"],
        label=attributes["label"],
        state=_STATES[trial.state],
        levels=dict(trial.params),
        plan=CompressionPlan.from_json(attributes["plan"]),
        measurement=Measurement.from_json(attributes["measurement"]) if is_complete else None,
        reason=attributes.get("reason"),
    )


def _check_identity(path: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    differing = [key for key in {**stored, **wanted} if stored.get(key) != wanted.get(key)]
    if differing:
        what = "; ".join(
            f"{key}: {_short(stored.get(key))} then, {_short(wanted.get(key))} now"
            for key in sorted(differing)
        )
        raise StudyMismatchError(
            f"The study {path} was made for something else: {what}.",
            "Repeat the first command to resume it, or start a new run with --run NAME.",
        )


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _unreadable(path: Path, error: Exception) -> StudyMismatchError:
    return StudyMismatchError(
        f"The study {path} cannot be read: {first_line(error)}.",
        "Restore it from a backup, or start a new run with --run NAME.",
    )


def _locked(folder: Path) -> RunLockedError:
    try:
        holder = json.loads((folder / ".driver.json").read_text(encoding="utf-8"))
        who = f"process {holder['pid']} on {holder['host']}"
    except (OSError, ValueError, KeyError):
        who = "another process"
    return RunLockedError(
        f"The run {folder} is driven by {who} at the moment.",
        "Wait until it ends, or start another run with --run NAME.",
    )
