"""What an executor does: evaluate one plan and hand back its measurement."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from autocompress.evaluate.dominance import Rivals
from autocompress.measurement import Fidelity, Measurement
from autocompress.plan import CompressionPlan
from autocompress.space.option_table import Figures

OnStage = Callable[[str, float], None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationJob:
    """Everything needed to evaluate one trial anywhere.

    Attributes:
        plan: What to build.
        seed: Decides everything random.
        fidelity: Training to put behind it.
        keep: Where to write the candidate's weights.
        rivals: What a candidate must have a chance against to be tuned at all; None tunes every
            candidate.
    """

    plan: CompressionPlan
    seed: int
    fidelity: Fidelity
    keep: Path
    rivals: Rivals | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProbeJob:
    """A plan to look at without training.

    Attributes:
        plan: What to build.
        has_size: Whether to pack it.
        has_latency: Whether to time it; packs it, too.
    """

    plan: CompressionPlan
    has_size: bool = False
    has_latency: bool = False


class Executor(Protocol):
    """Runs evaluations; knows nothing of studies."""

    def run(self, job: EvaluationJob, on_stage: OnStage) -> Measurement:
        """Evaluate one job.

        Raises:
            HopelessError: If the candidate was not tuned; the executor is ready for the next job.
            TrialError: If it failed; likewise.
        """
        ...

    def probe(self, job: ProbeJob) -> Figures:
        """Look at a plan without training.

        Raises:
            TrialError: If the candidate cannot be built or measured.
        """
        ...

    def close(self) -> None:
        """Stop whatever runs and free it."""
        ...
