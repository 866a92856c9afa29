"""Evaluate in this process: for tests, debugging and tasks that exist only in memory."""

from autocompress.errors import AutocompressError, TrialError, first_line
from autocompress.evaluate.evaluator import Evaluator
from autocompress.measurement import Measurement
from autocompress.search.executors.job import EvaluationJob, OnStage


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

    def close(self) -> None:
        """Nothing to free."""


def evaluate_job(evaluator: Evaluator, job: EvaluationJob, on_stage: OnStage) -> Measurement:
    """Evaluate one job; whatever goes wrong becomes a TrialError with a reason.

    Raises:
        TrialError: If the candidate failed.
    """
    try:
        return evaluator.evaluate(
            job.plan, seed=job.seed, fidelity=job.fidelity, keep=job.keep, on_stage=on_stage
        )
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
