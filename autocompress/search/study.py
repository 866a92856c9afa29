"""The study: one SQLite file that holds everything a run found. Knows no torch."""

import contextlib
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from autocompress.atomic_file import write_atomically
from autocompress.errors import StudyMismatchError
from autocompress.measurement import Fidelity, Measurement
from autocompress.objective import Direction, Limits, parse_objectives
from autocompress.run_record import Role, RunRecord, TrialRecord
from autocompress.search.guided.look import Look, look_of, looks_in
from autocompress.search.identity import FORMAT, check_format, check_identity
from autocompress.search.journal import Journal
from autocompress.search.pending import Job, job_of
from autocompress.search.records import record_of
from autocompress.search.run_lock import RunLock
from autocompress.search.sampler import distributions_of
from autocompress.search.storage import STUDY, guarding, open_storage
from autocompress.space.option_table import Figures, OptionTable
from autocompress.space.search_space import SearchSpace


class Study:
    """A run folder opened for driving: the only writer of its database.

    Use as a context manager: it holds the folder's lock.

    Args:
        folder: The run folder; created if missing.
        space: The knobs.
        objectives: Names, comma-separated.
        identity: What must not change between sessions: seed, settings, fingerprints. JSON.
        info: What else describes the run: versions, hardware. JSON.
        limits: Constraints; part of the identity.
        fidelity: Training behind searched trials; part of the identity.

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
        *,
        limits: Limits | None = None,
        fidelity: Fidelity = 1,
    ) -> None:
        self.folder = folder
        self.space = space
        self.objectives = parse_objectives(objectives)
        self.limits = limits or Limits()
        self.fidelity: Fidelity = fidelity
        self._identity = {
            **identity,
            "objectives": objectives,
            "space": space.fingerprint,
            "limits": self.limits.to_json(),
            "fidelity": fidelity,
        }
        self._info = dict(info)
        self._lock = RunLock(folder)
        self._journal = Journal(folder)
        self._records: dict[int, TrialRecord] = {}
        self._study: optuna.Study

    def __enter__(self) -> "Study":
        """Lock the folder, open or create the study, refuse one made for something else."""
        self._lock.acquire()
        try:
            with self._guard():
                self._open(self.folder / "study.db")
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close the database, so that its file alone is whole, and release the folder."""
        self._storage.engine.dispose()
        self._lock.release()

    def _guard(self) -> contextlib.AbstractContextManager[None]:
        return guarding(self.folder / "study.db")

    def _open(self, path: Path) -> None:
        is_new = not path.exists()
        if is_new or path.stat().st_size == 0:
            self._journal.check(())
        self._storage = open_storage(path)
        self._study = optuna.create_study(
            study_name=STUDY,
            storage=self._storage,
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
            check_format(path, stored)
            check_identity(path, stored["identity"], self._identity)
            # Data may have moved and versions changed since; when it began stays.
            moved = {**self._info, "started": stored["info"].get("started")}
            self._study.set_user_attr("info", moved)
        self._journal.check(self._study.get_trials(deepcopy=False))
        self._journal.catch_up(self._study)
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

    @property
    def has_latency(self) -> bool:
        """Whether latency is an objective or limited."""
        is_axis = any(objective.name == "latency" for objective in self.objectives)
        return is_axis or self.limits.max_latency_ms is not None

    def n_finished(self) -> int:
        """Trials that are complete, failed or stopped: what a budget counts."""
        return sum(t.state.is_finished() for t in self._study.get_trials(deepcopy=False))

    def finished(self) -> list[FrozenTrial]:
        """Complete trials of the run's fidelity, for samplers; they carry their constraints."""
        trials = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return [trial for trial in trials if trial.user_attrs["fidelity"] == self.fidelity]

    def failed(self) -> list[dict[str, int]]:
        """Levels of failed trials."""
        return self._levels_of(TrialState.FAIL)

    def stopped(self) -> list[dict[str, int]]:
        """Levels of trials that were not worth tuning."""
        return self._levels_of(TrialState.PRUNED)

    def running(self) -> list[FrozenTrial]:
        """Trials that are being evaluated."""
        return list(self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))

    def looks(self) -> list[Look]:
        """All plans that were looked at, to choose a trial or as one that was stopped, in order."""
        trials = self._study.get_trials(deepcopy=False)
        return [look for trial in trials for look in looks_in(trial.user_attrs)]

    def option_table(self) -> OptionTable | None:
        """The option table this study was begun with; None if it has none yet."""
        kept = self._study.user_attrs.get("option_table")
        return None if kept is None else OptionTable.from_json(kept)

    def keep_option_table(self, table: OptionTable) -> None:
        """Keep it: a resumed search must not depend on whether it is still in a cache."""
        with self._guard():
            self._study.set_user_attr("option_table", table.to_json())
            self._journal.write_attribute("option_table", table.to_json())

    def _levels_of(self, state: TrialState) -> list[dict[str, int]]:
        trials = self._study.get_trials(deepcopy=False, states=(state,))
        return [{name: int(level) for name, level in trial.params.items()} for trial in trials]

    def interrupted(self) -> list[Job]:
        """Trials that a dead driver left running; one that was measured is told."""
        jobs = []
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if "measurement" in trial.user_attrs:
                self._tell(trial.number, Measurement.from_json(trial.user_attrs["measurement"]))
            else:
                jobs.append(job_of(trial, trial.user_attrs.get("attempts", 1)))
        return jobs

    def begin_again(self, job: Job) -> Job:
        """Count another attempt at an interrupted trial, if its driver was killed.

        One that was stopped, or found the disk full, says nothing against the trial.
        """
        if not self._lock.was_abandoned:
            return job
        again = dataclasses.replace(job, attempts=job.attempts + 1)
        self._set(job.number, "attempts", again.attempts)
        with self._guard():
            self._journal.write_trial(self._study.get_trials(deepcopy=False)[job.number])
        return again

    def add(
        self,
        levels: Mapping[str, int],
        role: Role,
        label: str,
        fidelity: Fidelity,
        looks: Sequence[Look] = (),
    ) -> Job:
        """Write a new running trial and what was looked at to choose it, in one transaction."""
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
                **({"looks": [dataclasses.asdict(look) for look in looks]} if looks else {}),
            },
        )
        with self._guard():
            self._study.add_trial(trial)
            added = self._study.get_trials(deepcopy=False)[-1]
            self._journal.write_trial(added)
        return job_of(added, attempts=1)

    def complete(self, job: Job, measurement: Measurement) -> None:
        """Write a result; safe against death between its transactions."""
        self._set(job.number, "measurement", measurement.to_json())
        self._tell(job.number, measurement)

    def fail(self, job: Job, reason: str) -> None:
        """Mark a trial as failed, with its reason in one line."""
        self._end(job, reason, TrialState.FAIL)

    def stop(self, job: Job, reason: str, figures: Figures) -> None:
        """Mark a trial as stopped before it was tuned, with the reason and what was measured.

        Optuna calls it pruned: finished, without values, and not a failure.
        """
        look = look_of(job.levels, figures, has_chance=False)
        self._set(job.number, "look", dataclasses.asdict(look))
        self._end(job, reason, TrialState.PRUNED)

    def _end(self, job: Job, reason: str, state: TrialState) -> None:
        self._set(job.number, "reason", reason)
        with self._guard():
            self._tell_optuna(job.number, state=state)

    def record(self) -> RunRecord:
        """The run as plain data."""
        with self._guard():
            return record_of(self.folder, self._study, self._records)

    def _tell(self, number: int, measurement: Measurement) -> None:
        values = [getattr(measurement, objective.field) for objective in self.objectives]
        with self._guard():
            self._constrain(number, measurement)
            self._tell_optuna(number, values)

    def _tell_optuna(self, number: int, *args: Any, **kwargs: Any) -> None:
        self._study.tell(number, *args, **kwargs)
        self._journal.write_trial(self._study.get_trials(deepcopy=False)[number])

    def _constrain(self, number: int, measurement: Measurement) -> None:
        """Write all limits as constraints: Optuna takes a trial without any for feasible."""
        if self.limits.is_empty:
            return
        run = self.record()
        told = dataclasses.replace(run.trials[number], measurement=measurement)
        trials = (*run.trials[:number], told, *run.trials[number + 1 :])
        excesses = dataclasses.replace(run, trials=trials).excesses(told)
        frozen = self._study.get_trials(deepcopy=False)[number]
        trial = optuna.trial.Trial(self._study, frozen._trial_id)
        for name, excess in excesses.items():
            if name not in frozen.constraints:  # a session that died here has written it
                trial.set_constraint(name, excess)

    def _set(self, number: int, key: str, value: Any) -> None:
        trial = self._study.get_trials(deepcopy=False)[number]
        with self._guard():
            self._study._storage.set_trial_user_attr(trial._trial_id, key, value)
