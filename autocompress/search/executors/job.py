"""What an executor does: evaluate one plan and hand back its measurement."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from autocompress.measurement import Fidelity, Measurement
from autocompress.plan import CompressionPlan

OnStage = Callable[[str, float], None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationJob:
    """Everything needed to evaluate one trial anywhere.

    Attributes:
        plan: What to build.
        seed: Decides everything random.
        fidelity: Training to put behind it.
        keep: Where to write the candidate's weights.
    """

    plan: CompressionPlan
    seed: int
    fidelity: Fidelity
    keep: Path


class Executor(Protocol):
    """Runs evaluations; knows nothing of studies."""

    def run(self, job: EvaluationJob, on_stage: OnStage) -> Measurement:
        """Evaluate one job.

        Raises:
            TrialError: If the candidate failed; the executor is ready for the next job.
        """
        ...

    def close(self) -> None:
        """Stop whatever runs and free it."""
        ...
