"""What is the machine's fault is not held against a candidate."""

import dataclasses
import time
from typing import Final

from autocompress.errors import AutocompressError, TrialError
from autocompress.executors.job import EvaluationJob, Executor, OnStage, Outcome, ProbeJob
from autocompress.space.sensitivity_table import Figures

_RETRIED: Final = ("worker_died", "oom")


class RetryingExecutor:
    """Does a job again, once, that lost its worker; with half the batch if memory ran out.

    Args:
        executor: Does the work; in a fresh worker, after one was lost.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._first_tries: dict[int, EvaluationJob] = {}

    @property
    def n_slots(self) -> int:
        """Evaluations it can work on at once."""
        return self._executor.n_slots

    def submit(self, number: int, job: EvaluationJob) -> None:
        """Start the evaluation of a trial."""
        self._first_tries[number] = job
        self._executor.submit(number, job)

    def wait(self, on_stage: OnStage, timeout_s: float | None = None) -> Outcome | None:
        """Wait until an evaluation has ended, for good.

        Raises:
            AutocompressError: If the disk is full, which no other trial would survive either.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = None if until is None else max(0.0, until - time.monotonic())
            outcome = self._executor.wait(on_stage, left_s)
            if outcome is None:
                return None
            job, error = self._first_tries.pop(outcome.number, None), outcome.result
            if not isinstance(error, TrialError):
                return outcome
            if error.reason not in _RETRIED or job is None:
                _check_disk(error)
                return outcome
            again = dataclasses.replace(job, has_half_batch=error.reason == "oom")
            self._executor.submit(outcome.number, again)

    def probe(self, job: ProbeJob) -> Figures:
        """Probe a plan without training.

        Raises:
            TrialError: If it failed, twice where that may have been the machine's fault.
            AutocompressError: If the disk is full.
        """
        try:
            try:
                return self._executor.probe(job)
            except TrialError as error:
                if error.reason not in _RETRIED:
                    raise
            return self._executor.probe(job)
        except TrialError as error:
            _check_disk(error)
            raise

    def close(self) -> None:
        """Stop whatever runs and free it."""
        self._executor.close()


def _check_disk(error: TrialError) -> None:
    """Raise what ends a search if the disk is full."""
    if error.reason == "disk":
        raise AutocompressError(
            error.message, "Make room, then repeat the command: finished trials are kept."
        ) from error
