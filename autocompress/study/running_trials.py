"""The trials under way: started, waited for, and their results written."""

import contextlib
import logging
from pathlib import Path
from typing import Self

from autocompress.errors import AllTrialsFailedError, TrialError
from autocompress.evaluate.dominance import HopelessError, rivals_of
from autocompress.executors.job import EvaluationJob, Executor, Outcome
from autocompress.run_record import RunRecord
from autocompress.samplers.propose import derive_seed
from autocompress.study.listener import Listener
from autocompress.study.study import Study
from autocompress.study.trials import PendingTrial

_MAX_EQUAL_FAILURES = 5
_MAX_ATTEMPTS = 2
_OF_LIMITS = ("timeout", "memory", "oom")
_logger = logging.getLogger(__name__)


def weights_path(folder: Path, number: int) -> Path:
    """Where a trial's tuned weights are kept while it is on the front."""
    return folder / "candidates" / f"trial_{number:05d}.safetensors"


def trial_seed(run_seed: int, number: int) -> int:
    """Seed of everything random in a trial: the same in a resumed run as in an unbroken one."""
    return derive_seed(run_seed, "trial", number)


class RunningTrials:
    """The trials under way; a context manager that leaves none at work behind.

    Args:
        study: Opened study.
        executor: Evaluates candidates.
        listener: Told about progress.
        run_seed: Seed of the run.
        is_stopping_early: Whether what has no chance is not tuned.

    Attributes:
        run: The run so far.
        running: Number -> trial under way.

    Raises:
        AllTrialsFailedError: If the baseline has failed in an earlier session.
    """

    def __init__(
        self,
        study: Study,
        executor: Executor,
        listener: Listener,
        *,
        run_seed: int,
        is_stopping_early: bool,
    ) -> None:
        self.executor = executor
        self.run: RunRecord
        self.running: dict[int, PendingTrial] = {}
        self._study = study
        self._listener = listener
        self._run_seed = run_seed
        self._is_stopping_early = is_stopping_early
        self._failures: list[str] = []
        self.refresh()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Leave what runs: the next session begins it again."""
        if self.running:
            self.executor.close()

    def refresh(self) -> None:
        """See what the study holds now; other drivers may have written to it.

        Raises:
            AllTrialsFailedError: If the baseline has failed.
        """
        self.run = self._study.record()
        _check_baseline(self.run)

    def has_moved(self) -> bool:
        """Whether another driver has begun or ended trials since the last `refresh`."""
        known = {trial.number for trial in self.run.trials if trial.is_finished}
        trials = self._study.history().trials
        finished = {trial.number for trial in trials if trial.state.is_finished()}
        return len(trials) > len(self.run.trials) or finished != known

    def has_room(self, budget: int, n_waiting: int) -> bool:
        """Whether another trial fits beside those that run, and into the budget.

        Args:
            budget: Finished trials the study shall hold.
            n_waiting: Trials of the study that are to be begun again.
        """
        others = len(self.run.trials) - self.run.n_finished - len(self.running) - n_waiting
        n_started = self.run.n_finished + len(self.running) + max(others, 0)
        return len(self.running) < self.executor.n_slots and n_started < budget

    def start(self, job: PendingTrial) -> None:
        """Start a trial, unless it has brought the search down too often."""
        self._listener.on_start(job.number, job.label)
        if job.attempts > _MAX_ATTEMPTS:
            died = f"interrupted: the search died {_MAX_ATTEMPTS} times during this trial"
            self._study.fail(job, died)
            self._count(job, "interrupted")
            return
        self.running[job.number] = job
        self.executor.submit(job.number, self._evaluation(job))

    def finish_one(self, timeout_s: float | None) -> bool:
        """Wait for a trial to end and write its result; False if none has in time.

        Raises:
            AllTrialsFailedError: If the baseline failed, or trial after trial for the same reason.
        """
        outcome = self.executor.wait(self._listener.on_stage, timeout_s)
        if outcome is None:
            return False
        job = self.running[outcome.number]
        reason = self._write(job, outcome)
        del self.running[outcome.number]
        self._count(job, reason)
        return True

    def _evaluation(self, job: PendingTrial) -> EvaluationJob:
        """What an executor needs; rivals for what the search proposed and tunes."""
        run = self._study.record()
        is_searched = run.trials[job.number].role == "search"
        is_screened = self._is_stopping_early and job.fidelity > 0 and is_searched
        return EvaluationJob(
            plan=self._study.space.decode(job.levels),
            seed=trial_seed(self._run_seed, job.number),
            fidelity=job.fidelity,
            keep=weights_path(self._study.folder, job.number),
            rivals=rivals_of(run, job.number) if is_screened else None,
        )

    def _write(self, job: PendingTrial, outcome: Outcome) -> str | None:
        """Write a result; returns the reason if the trial failed.

        A baseline that had too little time or memory is left under way: with more of them the same
        command measures it again, where a failed one would end the run for good.
        """
        error = outcome.result
        if job.number == 0 and isinstance(error, TrialError) and error.reason in _OF_LIMITS:
            raise AllTrialsFailedError(
                f"The original model could not be measured: {error.message}",
                "Repeat the command with a larger `trial_timeout` or `trial_memory`: the run goes "
                "on.",
            )
        try:
            self._study.complete(job, outcome.measurement())
        except HopelessError as error:
            self._study.stop(job, error.message, error.figures)
        except TrialError as error:
            self._study.fail(job, f"{error.reason}: {error.message}")
            return error.reason
        return None

    def _count(self, job: PendingTrial, reason: str | None) -> None:
        """Take note of a finished trial, and raise if it shows that no other will succeed."""
        self.run = self._study.record()
        trial = self.run.trials[job.number]
        if not trial.is_finished:
            _logger.warning("Another driver has taken over trial %d: nothing is lost.", job.number)
            return
        if reason is not None:
            self._failures.append(reason)
        elif trial.state == "complete":  # one that was stopped proves nothing
            self._failures.clear()
        _drop_weights(self.run)
        self._listener.on_finish(trial, self.run)
        _check_baseline(self.run)
        recent = self._failures[-_MAX_EQUAL_FAILURES:]
        if len(recent) == _MAX_EQUAL_FAILURES and len(set(recent)) == 1:
            raise AllTrialsFailedError(
                f"{_MAX_EQUAL_FAILURES} trials in a row failed; the last one: {trial.reason}",
                "Fix the cause and repeat the command: it continues with the next trial.",
            )


def _drop_weights(run: RunRecord) -> None:
    """Delete the weights of trials that are not on the front, and are not about to get there."""
    running = (trial for trial in run.trials if not trial.is_finished)
    kept = {weights_path(run.folder, trial.number) for trial in (*run.front(), *running)}
    for path in (run.folder / "candidates").glob("trial_*.safetensors"):
        if path not in kept and path.stem.removeprefix("trial_").isdecimal():
            with contextlib.suppress(OSError):
                path.unlink()


def _check_baseline(run: RunRecord) -> None:
    if run.trials and run.trials[0].state == "failed":
        raise AllTrialsFailedError(
            f"The original model could not be measured: {run.trials[0].reason}",
            "Nothing can be compared without it: fix the cause and start anew with `name=NAME`.",
        )
