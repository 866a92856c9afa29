"""Evaluate in this process: for tests, debugging and tasks that exist only in memory."""

from collections.abc import Callable
from typing import TypeVar

from autocompress.errors import AutocompressError, TrialError, first_line
from autocompress.evaluate.evaluator import Evaluator
from autocompress.measurement import Measurement
from autocompress.search.executors.job import EvaluationJob, OnStage, ProbeJob
from autocompress.space.option_table import Figures

_T = TypeVar("_T")


class InlineExecutor:
    """Calls the evaluator directly: no time limit, and a crash takes the driver along.

    Args:
        evaluator: Evaluates the plans.
    """

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator

    def run(self, job: EvaluationJob, on_stage: OnStage) -> Measurement:
        """Evaluate one job; every exception becomes a TrialError."""
        return evaluate_job(self._evaluator, job, on_stage)

    def probe(self, job: ProbeJob) -> Figures:
        """Look at a plan without training; every exception becomes a TrialError."""
        return probe_job(self._evaluator, job)

    def close(self) -> None:
        """Nothing to free."""


def evaluate_job(evaluator: Evaluator, job: EvaluationJob, on_stage: OnStage) -> Measurement:
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
            on_stage=on_stage,
        )
    )


def probe_job(evaluator: Evaluator, job: ProbeJob) -> Figures:
    """Look at a plan without training; whatever goes wrong becomes a TrialError with a reason.

    Raises:
        TrialError: If the candidate cannot be built or measured.
    """
    return _guarded(
        lambda: evaluator.probe(job.plan, has_size=job.has_size, has_latency=job.has_latency)
    )


def _guarded(act: Callable[[], _T]) -> _T:
    try:
        return act()
    except TrialError:
        raise
    except AutocompressError as error:
        raise TrialError("invalid", str(error)) from error
    except MemoryError as error:
        raise TrialError("oom", "The machine ran out of memory.") from error
    except Exception as error:
        is_oom = "out of memory" in str(error).lower() or "can't allocate" in str(error).lower()
        reason = "oom" if is_oom else "crashed"
        raise TrialError(reason, f"{type(error).__name__}: {first_line(error)}") from error
