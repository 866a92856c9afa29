"""What an executor does: evaluate plans, as many at once as it has room for."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from autocompress.errors import TrialError
from autocompress.evaluate.dominance import Rivals
from autocompress.measurement import Fidelity, Measurement
from autocompress.plan import CompressionPlan
from autocompress.space.sensitivity_table import Figures

OnStage = Callable[[int, str, float], None]
"""Told the number of a trial, the stage it is in, and the share of it that is done."""


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
        has_half_batch: Whether to train with half the batch, since memory ran out with all of it.
    """

    plan: CompressionPlan
    seed: int
    fidelity: Fidelity
    keep: Path
    rivals: Rivals | None = None
    has_half_batch: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProbeJob:
    """A plan to probe without training.

    Attributes:
        plan: What to build.
        has_size: Whether to pack it.
        has_latency: Whether to time it; packs it, too.
    """

    plan: CompressionPlan
    has_size: bool = False
    has_latency: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an evaluation ended.

    Attributes:
        number: Number of the trial.
        result: What was measured, or why nothing was.
    """

    number: int
    result: Measurement | TrialError

    def measurement(self) -> Measurement:
        """What was measured.

        Raises:
            HopelessError: If the candidate was not tuned.
            TrialError: If it failed.
        """
        if isinstance(self.result, TrialError):
            raise self.result
        return self.result


class Executor(Protocol):
    """Runs evaluations; knows nothing of studies."""

    @property
    def n_slots(self) -> int:
        """Evaluations it can work on at once."""
        ...

    def submit(self, number: int, job: EvaluationJob) -> None:
        """Start the evaluation of a trial; `n_slots` at once at most."""
        ...

    def wait(self, on_stage: OnStage, timeout_s: float | None = None) -> Outcome | None:
        """Wait until one of the evaluations under way has ended.

        Args:
            on_stage: Told how all of them get on.
            timeout_s: Seconds to wait at most, where the executor can leave one unfinished; None
                for as long as it takes.

        Returns:
            How it ended, or None if none has in time.

        Raises:
            AutocompressError: If no evaluation could succeed here.
        """
        ...

    def probe(self, job: ProbeJob) -> Figures:
        """Probe a plan without training; at least one slot must be free.

        Raises:
            TrialError: If the candidate cannot be built or measured.
        """
        ...

    def close(self) -> None:
        """Stop whatever runs and free it."""
        ...
