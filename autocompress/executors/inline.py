"""Evaluate in this process: for tests, debugging and tasks that exist only in memory."""

import abc
import errno
from collections.abc import Callable
from typing import Final, TypeVar

from autocompress.errors import AutocompressError, TrialError
from autocompress.evaluate.evaluator import Evaluator
from autocompress.executors.job import EvaluationJob, OnStage, Outcome, ProbeJob
from autocompress.measurement import Measurement
from autocompress.space.sensitivity_table import Figures
from autocompress.tasks.user_code import describe_error


class SerialExecutor(abc.ABC):
    """An executor without processes of its own: it works while it is waited for, to the end."""

    n_slots = 1

    def __init__(self) -> None:
        self._submitted: tuple[int, EvaluationJob] | None = None

    @abc.abstractmethod
    def run(self, number: int, job: EvaluationJob, on_stage: OnStage) -> Measurement:
        """Evaluate one job.

        Raises:
            HopelessError: If the candidate was not tuned.
            TrialError: If it failed.
        """

    @abc.abstractmethod
    def probe(self, job: ProbeJob) -> Figures:
        """Probe a plan without training.

        Raises:
            TrialError: If the candidate cannot be built or measured.
        """

    def submit(self, number: int, job: EvaluationJob) -> None:
        """Take note of the next evaluation."""
        assert self._submitted is None
        self._submitted = number, job

    def wait(self, on_stage: OnStage, timeout_s: float | None = None) -> Outcome | None:
        """Do it; there is nothing that could cut it short."""
        assert self._submitted is not None
        (number, job), self._submitted = self._submitted, None
        try:
            return Outcome(number=number, result=self.run(number, job, on_stage))
        except TrialError as error:
            return Outcome(number=number, result=error)

    def close(self) -> None:
        """Forget what was not begun."""
        self._submitted = None


_DISK: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)

_T = TypeVar("_T")


class InlineExecutor(SerialExecutor):
    """Calls the evaluator directly: no time limit, and a crash takes the driver along.

    Args:
        evaluator: Evaluates the plans.
    """

    def __init__(self, evaluator: Evaluator) -> None:
        super().__init__()
        self._evaluator = evaluator

    def run(self, number: int, job: EvaluationJob, on_stage: OnStage) -> Measurement:
        """Evaluate one job; every exception becomes a TrialError."""
        return evaluate_job(self._evaluator, number, job, on_stage)

    def probe(self, job: ProbeJob) -> Figures:
        """Probe a plan without training; every exception becomes a TrialError."""
        return probe_job(self._evaluator, job)


def evaluate_job(
    evaluator: Evaluator, number: int, job: EvaluationJob, on_stage: OnStage
) -> Measurement:
    """Evaluate one job; whatever goes wrong becomes a TrialError with a reason.

    Raises:
        TrialError: If the candidate failed, or was stopped because its rivals dominate it.
    """
    return _guarded(
        lambda: evaluator.evaluate(
            job.plan,
            seed=job.seed,
            fidelity=job.fidelity,
            keep=job.keep,
            rivals=job.rivals,
            has_half_batch=job.has_half_batch,
            on_stage=lambda stage, share: on_stage(number, stage, share),
        )
    )


def probe_job(evaluator: Evaluator, job: ProbeJob) -> Figures:
    """Probe a plan without training; whatever goes wrong becomes a TrialError with a reason.

    Raises:
        TrialError: If the candidate cannot be built or measured.
    """
    return _guarded(
        lambda: evaluator.probe(job.plan, has_size=job.has_size, has_latency=job.has_latency)
    )


def attempted(act: Callable[[], _T]) -> _T:
    """Do something with one candidate in this process that others must not suffer from.

    Raises:
        TrialError: If it fails in the candidate, or in the user's code.
        AutocompressError: If something that the user gave cannot be used; if the
            machine has no room or cannot read or write, which may be over in a moment.
    """
    try:
        return act()
    except AutocompressError:
        raise
    except Exception as error:
        reason, message = _reason(error)
        if reason in ("disk", "oom") or isinstance(error, OSError):
            hint = "If that is over, repeat the command: it goes on where it was."
            raise AutocompressError(message, hint) from error
        raise TrialError(reason, message) from error


def _guarded(act: Callable[[], _T]) -> _T:
    try:
        return act()
    except TrialError:
        raise
    except Exception as error:
        raise TrialError(*_reason(error)) from error


def _reason(error: Exception) -> tuple[str, str]:
    """Short word and message for what went wrong."""
    full, text = _disk_error(error), str(error).lower()
    if full is not None:
        return "disk", f"Nothing can be written: {full.strerror}."
    if isinstance(error, AutocompressError):
        return "invalid", str(error)
    if isinstance(error, MemoryError):
        return "oom", "The machine ran out of memory."
    is_oom = "out of memory" in text or "can't allocate" in text
    return "oom" if is_oom else "crashed", describe_error(error)


def _disk_error(error: BaseException) -> OSError | None:
    """What says that the disk is full or read-only, among an error and its causes."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _DISK:
            return cause
        cause = cause.__cause__
    return None
