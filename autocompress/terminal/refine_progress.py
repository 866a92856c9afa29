"""What refinements show on the terminal while they train."""

from typing import Any, Final

from autocompress.errors import NoPointError
from autocompress.measurement import Measurement
from autocompress.run_record import RunRecord, TrialRecord
from autocompress.runs.refine.refine_run import RefineListener
from autocompress.runs.refine.training import Epoch
from autocompress.search_options import SearchOptions
from autocompress.terminal.progress_bar import LiveBar, duration_words

_USUAL_TOP: Final = 3
_MOST_TOP: Final = 6
_LEAST_EPOCHS: Final = 1.0  # the first brings half of what ten do; more points bring more
_SLOWER: Final = 1.5  # refining matches features and prices entropy, unlike the proxy


class RefineProgress(LiveBar):
    """Shows what refinements do; a context manager while they run.

    Args:
        quiet: Whether to show nothing.
    """

    def __init__(self, *, quiet: bool) -> None:
        super().__init__("Refining", None, quiet=quiet)
        self._label = ""
        self._begun_s: float | None = None
        self._n_before = 0
        self.listener = RefineListener(
            on_begin=self._on_begin,
            on_start=self._on_start,
            on_stage=self._on_stage,
            on_epoch=self._on_epoch,
            on_finish=self._on_finish,
        )

    def _on_begin(self, missing: tuple[TrialRecord, ...], wanted: tuple[TrialRecord, ...]) -> None:
        done = len(wanted) - len(missing)
        if done:
            what = "are" if done > 1 else "is"
            self.note(f"{done} of {len(wanted)} trials {what} refined in this way already.")

    def _on_start(self, trial: TrialRecord) -> None:
        self._label, self._begun_s = trial.label, None
        assert trial.measurement is not None
        self.note(
            f"{trial.label}: {trial.measurement.accuracy:.2%} by the proxy, "
            f"{trial.measurement.size_bytes:,} bytes"
        )
        self._bar.reset(self._task, total=None, stage=trial.label)

    def _on_stage(self, stage: str, share: float) -> None:
        self._bar.update(self._task, stage=f"{self._label}: {stage} {share:.0%}")

    def _on_epoch(self, epoch: Epoch) -> None:
        if self._begun_s is None:  # the first of this session says how long one takes, not whole
            self._begun_s, self._n_before = epoch.seconds, epoch.number
        n_timed = epoch.number - self._n_before
        mean_s = epoch.seconds / epoch.number  # of earlier sessions, too
        each_s = (epoch.seconds - self._begun_s) / n_timed if n_timed else mean_s
        left_s = each_s * (epoch.n_epochs - epoch.number)
        bits = (
            "" if epoch.est_code_bits is None else f", about {epoch.est_code_bits:.2f} bit/weight"
        )
        left = f", about {duration_words(left_s)} left" if left_s > 0 else ""
        self.note(
            f"{self._label}: epoch {epoch.number} of {epoch.n_epochs}: "
            f"{epoch.accuracy:.2%}{bits}{left}"
        )
        self._bar.update(self._task, total=epoch.n_epochs, completed=epoch.number)

    def _on_finish(
        self, trial: TrialRecord, measured: Measurement | None, reason: str | None
    ) -> None:
        outcome = (
            f"failed ({reason})"
            if measured is None
            else f"{measured.accuracy:.2%}, {measured.size_bytes:,} bytes, "
            f"{duration_words(measured.seconds)}"
        )
        self.note(f"{trial.label}, refined: {outcome}")


def refine_points(
    record: Any, *, numbers: tuple[int, ...], top: int, quiet: bool, **how: Any
) -> tuple[Any, ...]:
    """Refine and show progress.

    Raises:
        NoPointError: If every refinement failed.
    """
    from autocompress.runs.refine.refine_run import choose_trials, refine_run
    from autocompress.study.result_files import refinements_file

    chosen = choose_trials(record, numbers=numbers, top=top)
    progress = RefineProgress(quiet=quiet)
    try:
        with progress:
            refined = refine_run(record, chosen, listener=progress.listener, **how)
    except KeyboardInterrupt:
        progress.note(f"Stopped. Nothing is lost: the same command continues {record.folder}.")
        raise
    if not refined:
        named = {trial.number for trial in chosen}
        failed = refinements_file(record.folder).read().values()
        reasons = [e["reason"] for e in failed if e["trial"] in named and e["reason"]]
        raise NoPointError(
            f"None of the {len(chosen)} trials could be refined.", f"The first reason: {reasons[0]}"
        )
    return refined


def refine_as_asked(run: Any, options: SearchOptions, *, quiet: bool) -> Any:
    """Refine members of the front with the default recipe, as `refine` and `time` of a search say.

    Args:
        run: What was searched.
        options: Of the search.
        quiet: Whether to show nothing.

    Returns:
        The run as it is then; the same if nothing was asked for, or no time is left.

    Raises:
        NoPointError: If there is nothing to refine, or every refinement failed.
    """
    from autocompress.study.records import load_run

    top, minutes = options.refine, None
    if options.time is not None:
        left_s = options.time - run.seconds
        if left_s <= 0.0:
            return run
        top = top or n_affordable(run, left_s)
        minutes = left_s / 60.0 / top
    if not top:
        return run
    refine_points(run, numbers=(), top=top, quiet=quiet, fields={}, minutes=minutes)
    return load_run(run.folder)


def n_affordable(run: RunRecord, seconds: float) -> int:
    """Points that can be refined in a time: as many as get an epoch each, from 1 to 6."""
    speeds = [
        t.measurement.train_images_per_s
        for t in run.trials
        if t.measurement is not None and t.measurement.train_images_per_s is not None
    ]
    if not speeds:
        return _USUAL_TOP
    n_images = int(run.info.get("splits", {}).get("train", 0))
    epoch_s = _SLOWER * n_images / max(speeds)
    return min(max(int(seconds / max(_LEAST_EPOCHS * epoch_s, 1e-9)), 1), _MOST_TOP)
