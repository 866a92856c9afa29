"""Progress of a validation: which trial is trained in full, and how long the rest takes."""

import time

from autocompress.run_record import TrialRecord
from autocompress.runs.validate.retrain import RetrainListener
from autocompress.runs.validate.validation import Retraining
from autocompress.terminal.progress_bar import LiveBar, duration_words


class ValidationProgress(LiveBar):
    """Shows what a validation does; a context manager while it runs.

    Args:
        quiet: Whether to show nothing.
    """

    def __init__(self, *, quiet: bool) -> None:
        super().__init__("Training in full", None, quiet=quiet)
        self._label = ""
        self._n_open = 0
        self._seconds_each: list[float] = []
        self._started = 0.0
        self.listener = RetrainListener(
            on_begin=self._on_begin,
            on_start=self._on_start,
            on_stage=self._on_stage,
            on_finish=self._on_finish,
        )

    def _on_begin(
        self, missing: tuple[TrialRecord, ...], n_sample: int, ratio: float | None
    ) -> None:
        self._n_open = len(missing)
        self._bar.update(self._task, total=n_sample, completed=n_sample - len(missing))
        if not missing:
            self.note(f"All {n_sample} trials of the sample are trained in full already.")
            return
        proxy_s = sum(t.measurement.seconds for t in missing if t.measurement is not None)
        what = f"Training {len(missing)} of {n_sample} trials in full"
        if ratio is None:
            self.note(f"{what}; how long that takes is told after the first.")
            return
        duration = duration_words(ratio * proxy_s)
        self.note(
            f"{what}, {ratio:g} times as long as the proxy: about {duration}, "
            "to judge by the proxy's time."
        )

    def _on_start(self, trial: TrialRecord) -> None:
        self._label = trial.label
        self._started = time.monotonic()
        self._bar.update(self._task, stage=self._label)

    def _on_stage(self, stage: str, share: float) -> None:
        percent = f" {share:.0%}" if share else ""
        self._bar.update(self._task, stage=f"{self._label}: {stage}{percent}{self._left(share)}")

    def _on_finish(self, result: Retraining) -> None:
        self._seconds_each.append(time.monotonic() - self._started)
        self._n_open -= 1
        self._bar.advance(self._task)
        outcome = (
            f"failed ({result.reason})"
            if result.full is None
            else f"{result.proxy.accuracy:.2%} by the proxy, {result.full.accuracy:.2%} in full, "
            f"{result.full.seconds:.0f} s"
        )
        self.note(f"{result.trial.label}: {outcome}{self._left(0.0)}")

    def _left(self, share: float) -> str:
        """Time left, from the trainings so far, `share` of the running one being done."""
        if not self._seconds_each or not self._n_open:
            return ""
        each_s = sum(self._seconds_each) / len(self._seconds_each)
        return f", about {duration_words(each_s * (self._n_open - share))} left"
