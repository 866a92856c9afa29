"""What is the machine's fault is not held against a candidate."""

from collections.abc import Callable
from typing import Final, TypeVar

from autocompress.errors import AutocompressError, TrialError
from autocompress.measurement import Measurement
from autocompress.search.executors.job import EvaluationJob, Executor, OnStage, ProbeJob
from autocompress.space.option_table import Figures

_RETRIED: Final = ("worker_died", "oom")

_T = TypeVar("_T")


class RetryingExecutor:
    """Does a job again, once and in a fresh worker, that lost its worker or its memory.

    Args:
        executor: Does the work.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def run(self, job: EvaluationJob, on_stage: OnStage) -> Measurement:
        """Evaluate one job.

        Raises:
            HopelessError: If the candidate was not tuned.
            TrialError: If it failed, twice where that may have been the machine's fault.
            AutocompressError: If the disk is full, which no other trial would survive either.
        """
        return self._tried(lambda: self._executor.run(job, on_stage))

    def probe(self, job: ProbeJob) -> Figures:
        """Look at a plan without training.

        Raises:
            TrialError: If it failed, twice where that may have been the machine's fault.
            AutocompressError: If the disk is full.
        """
        return self._tried(lambda: self._executor.probe(job))

    def close(self) -> None:
        """Stop whatever runs and free it."""
        self._executor.close()

    def _tried(self, act: Callable[[], _T]) -> _T:
        try:
            try:
                return act()
            except TrialError as error:
                if error.reason not in _RETRIED:
                    raise
            self._executor.close()
            return act()
        except TrialError as error:
            if error.reason != "disk":
                raise
            raise AutocompressError(
                error.message, "Make room, then repeat the command: finished trials are kept."
            ) from error
