"""One evaluation at a time, done by whoever waits for it."""

import abc

from autocompress.errors import TrialError
from autocompress.measurement import Measurement
from autocompress.search.executors.job import EvaluationJob, OnStage, Outcome, ProbeJob
from autocompress.space.option_table import Figures


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
        """Look at a plan without training.

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
