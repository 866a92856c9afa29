"""The study: one database that holds everything a run found. Knows no torch."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from autocompress.measurement import Fidelity, Measurement
from autocompress.objective import LATENCY, Direction, Limits, parse_objectives
from autocompress.run_record import Role, RunRecord, TrialRecord
from autocompress.samplers.guided.probed_plan import ProbedPlan, probed_plan
from autocompress.space.search_space import SearchSpace
from autocompress.space.sensitivity_table import Figures, SensitivityTable
from autocompress.storages.sqlite_store import SqliteStore
from autocompress.storages.store import Store
from autocompress.study.identity import attributes_of, check_format, check_identity, write_info
from autocompress.study.records import record_of, space_in
from autocompress.study.trials import (
    PendingTrial,
    TrialHistory,
    constrain,
    is_among,
    on_one_scale,
    pending_trial,
    running_trial,
)


class Study:
    """A run opened for driving.

    Use as a context manager: it holds the run folder's lock or, on a server, a lease.

    Args:
        folder: The run folder; created if missing.
        space: The knobs.
        objectives: Names, comma-separated.
        identity: What must not change between sessions: seed, settings, fingerprints. JSON.
        info: What else describes the run: versions, hardware. JSON.
        limits: Constraints; part of the identity.
        fidelity: Training behind searched trials; part of the identity.
        store: Where it is kept; None for SQLite in the run folder.
        keeps_space: Whether a study that exists keeps its own knobs, whatever `space` says.

    Raises:
        InputError: If the folder cannot be written, or the server not be reached.
        RunLockedError: If another process drives this run.
        StudyMismatchError: If there is another study; names what differs.
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
        store: Store | None = None,
        keeps_space: bool = False,
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
        self._keeps_space = keeps_space
        self._store: Store = SqliteStore(folder) if store is None else store
        self._records: dict[int, TrialRecord] = {}
        self._mine: set[int] = set()
        self._study: optuna.Study

    def __enter__(self) -> "Study":
        """Open or create the study, refuse one made for something else."""
        self._study = self._store.open(self.directions, self._claim)
        try:
            told = self._store.attempt(lambda: self._study.user_attrs)
            write_info(self.folder, {**told, "info": {**told["info"], **self._info_here(told)}})
        except BaseException:
            self._store.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Let others have it."""
        self._store.close()

    @property
    def is_shared(self) -> bool:
        """Whether other drivers may work on it at the same time."""
        return self._store.is_shared

    def _claim(self, study: optuna.Study) -> dict[str, Any]:
        """What to write into a study to make it this one's; raises if it is another's."""
        stored = study.user_attrs
        if "identity" in stored:
            check_format(self._store.name, stored)
            if self._keeps_space:
                self.space = space_in(stored)
                self._identity["space"] = self.space.fingerprint
            check_identity(self._store.name, stored["identity"], self._identity)
            return {} if self.is_shared else {"info": self._info_here(stored)}
        names = [objective.name for objective in self.objectives]
        return attributes_of(self.space, names, self._info, self._identity)

    def _info_here(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """Data may have moved and versions changed since; when it began stays."""
        return {**self._info, "started": stored["info"].get("started")}

    @property
    def directions(self) -> list[Direction]:
        """`maximize` or `minimize` per objective."""
        return [objective.direction for objective in self.objectives]

    @property
    def metric(self) -> str:
        """What the task's metric is called."""
        return str(self._info.get("metric", "accuracy"))

    @property
    def has_latency(self) -> bool:
        """Whether latency is an objective or limited."""
        return LATENCY in self.objectives or LATENCY in self.limits.bounds

    def n_finished(self) -> int:
        """Trials that are complete, failed or stopped: what a budget counts."""
        return sum(trial.state.is_finished() for trial in self._trials())

    def running_elsewhere(self) -> list[FrozenTrial]:
        """Running trials that this session has not begun."""
        return [t for t in self._trials(TrialState.RUNNING) if t.number not in self._mine]

    def history(self) -> TrialHistory:
        """What there is to learn from, for whoever proposes the next trial."""
        return TrialHistory(trials=self._trials(), fidelity=self.fidelity)

    def sensitivity_table(self) -> SensitivityTable | None:
        """The sensitivity table this study was begun with; None if it has none yet."""
        kept = self._store.attempt(lambda: self._study.user_attrs.get("option_table"))
        return None if kept is None else SensitivityTable.from_json(kept)

    def keep_sensitivity_table(self, table: SensitivityTable) -> None:
        """Keep it: a resumed search must not depend on whether it is still in a cache."""

        def keep() -> None:
            self._study.set_user_attr("option_table", table.to_json())
            self._store.write_attribute("option_table", table.to_json())

        self._store.attempt(keep)

    def alone(self, action: Callable[[], None]) -> bool:
        """Do what one driver does for all, unless another one is at it; whether it was done."""
        return self._store.alone(action)

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        """All trials, or those in some states, in order of their numbers."""
        wanted = states or None
        trials = self._store.attempt(lambda: self._study.get_trials(deepcopy=False, states=wanted))
        return list(trials)

    def interrupted(self) -> list[PendingTrial]:
        """Running trials that nobody works on; one that was measured already is told."""
        jobs = []
        for trial, _ in self._left_behind():
            if "measurement" in trial.user_attrs:
                if (job := self.begin_again(pending_trial(trial))) is not None:
                    self.complete(job, Measurement.from_json(trial.user_attrs["measurement"]))
            else:
                jobs.append(pending_trial(trial))
        return jobs

    def _left_behind(self) -> list[tuple[FrozenTrial, bool]]:
        return self._store.left_behind(self.running_elsewhere())

    def begin_again(self, job: PendingTrial) -> PendingTrial | None:
        """Take over a trial that nobody works on, and count another attempt if its driver died.

        Returns:
            The trial, or None if somebody else has taken it meanwhile.
        """

        def take() -> PendingTrial | None:
            left = {trial.number: was_killed for trial, was_killed in self._left_behind()}
            if job.number not in left:
                return None
            again = dataclasses.replace(job, attempts=job.attempts + left[job.number])
            for key, value in {"attempts": again.attempts, **self.signature()}.items():
                self._set(job.number, key, value)
            self._store.write_trial(self._study.get_trials(deepcopy=False)[job.number])
            return again

        taken = self._store.in_turn(take)
        if taken is not None:
            self._mine.add(job.number)
        return taken

    def signature(self) -> dict[str, str]:
        """Whose trial it is, where several drivers share a study; else empty."""
        return {"driver": self._store.driver} if self.is_shared else {}

    def add(
        self,
        levels: Mapping[str, int],
        role: Role,
        label: str | None,
        fidelity: Fidelity,
        probes: Sequence[ProbedPlan] = (),
        *,
        budget: int | None = None,
    ) -> PendingTrial | None:
        """Write a new running trial and what was probed to choose it, in one transaction.

        Args:
            levels: Knob name -> level index.
            role: Of the trial.
            label: What tables call it; None for `trial N`.
            fidelity: Training to put behind it.
            probes: What was probed to choose it.
            budget: Trials the study may hold; None for any number.

        Returns:
            The trial, or None if another driver has used up the budget, or begun the same.
        """

        def write() -> PendingTrial | None:
            trials = self._study.get_trials(deepcopy=False)
            is_full = budget is not None and len(trials) >= budget
            if self.is_shared and (is_full or is_among(trials, levels, label)):
                return None
            name = label or f"trial {len(trials)}"
            facts = {"role": role, "label": name, "fidelity": fidelity, **self.signature()}
            self._store.check_turn()
            self._study.add_trial(running_trial(self.space, levels, probes, facts))
            added = self._study.get_trials(deepcopy=False)[-1]
            self._store.write_trial(added)
            return pending_trial(added)

        job = self._store.in_turn(write)
        if job is not None:
            self._mine.add(job.number)
        return job

    def complete(self, job: PendingTrial, measurement: Measurement) -> None:
        """Write a result; safe against death between its transactions."""
        measured = on_one_scale(measurement, self._trials()[0])
        values = [getattr(measured, objective.field) for objective in self.objectives]

        def write() -> None:
            self._set(job.number, "measurement", measured.to_json())
            if not self.limits.is_empty:
                constrain(self._study, self.record(), job.number, measured)
            self._tell(job.number, values)

        self._write(job, write)

    def fail(self, job: PendingTrial, reason: str) -> None:
        """Mark a trial as failed, with its reason in one line."""
        self._end(job, reason, TrialState.FAIL, {})

    def stop(self, job: PendingTrial, reason: str, figures: Figures) -> None:
        """Mark a trial as stopped before it was tuned, with the reason and what was measured.

        Optuna calls it pruned: finished, without values, and not a failure.
        """
        probed = dataclasses.asdict(probed_plan(job.levels, figures, has_chance=False))
        self._end(job, reason, TrialState.PRUNED, {"look": probed})  # its key in a study

    def _end(
        self, job: PendingTrial, reason: str, state: TrialState, attributes: Mapping[str, Any]
    ) -> None:
        def write() -> None:
            for key, value in {**attributes, "reason": reason}.items():
                self._set(job.number, key, value)
            self._tell(job.number, state=state)

        self._write(job, write)

    def _write(self, job: PendingTrial, write: Callable[[], None]) -> None:
        """Write a trial's end, unless another driver, which thought this one dead, has it now."""

        def write_if_held() -> None:
            trial = self._trials()[job.number]
            owner = trial.user_attrs.get("driver", "")
            if not trial.state.is_finished() and owner == self._store.driver:
                write()

        self._store.in_turn(write_if_held)
        self._mine.discard(job.number)

    def record(self, *, is_patient: bool = True) -> RunRecord:
        """The run as plain data; without patience a server that is away is an error at once."""

        def read() -> RunRecord:
            return record_of(self.folder, self._study, self._records)

        return self._store.attempt(read, is_patient=is_patient)

    def _tell(self, number: int, *args: Any, **kwargs: Any) -> None:
        self._study.tell(number, *args, **kwargs)
        self._store.write_trial(self._study.get_trials(deepcopy=False)[number])

    def _set(self, number: int, key: str, value: Any) -> None:
        trial = self._study.get_trials(deepcopy=False)[number]
        self._study._storage.set_trial_user_attr(trial._trial_id, key, value)
