"""Live progress of a search on stderr: a bar on a terminal, one line per trial elsewhere."""

import sys
import time
from types import TracebackType

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from autocompress.run_record import RunRecord, TrialRecord
from autocompress.search.driver import Listener


class SearchProgress:
    """Shows what a search does; a context manager while it runs.

    Args:
        budget: Trials the run shall hold.
        quiet: Whether to show nothing but warnings.
    """

    def __init__(self, budget: int, *, quiet: bool) -> None:
        self._budget = budget
        self._quiet = quiet
        self._console = Console(stderr=True)
        self._is_live = self._console.is_terminal and not quiet
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[stage]}"),
            console=self._console,
            disable=not self._is_live,
        )
        self._task = self._bar.add_task("Searching", total=budget, stage="")
        self._label = ""
        self._started: list[float] = []
        self.listener = Listener(
            on_start=self._on_start, on_stage=self._on_stage, on_finish=self._on_finish
        )

    def __enter__(self) -> "SearchProgress":
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def note(self, text: str) -> None:
        """Say something in passing."""
        if not self._quiet:
            click.echo(text, err=True)

    def warn(self, text: str) -> None:
        """Say something that must be seen."""
        click.echo(f"Warning: {text}", err=True)

    def begin(self, run: RunRecord) -> None:
        """Say what lies ahead."""
        n_finished = sum(trial.state != "running" for trial in run.trials)
        self._bar.update(self._task, completed=n_finished)
        verb = f"Continuing after {n_finished} trials" if n_finished else "Starting"
        self.note(f"{verb}: {len(run.knobs)} knobs, budget {self._budget}, in {run.folder}")

    def _on_start(self, number: int, label: str) -> None:
        self._label = label
        self._started.append(time.monotonic())
        self._bar.update(self._task, stage=label)

    def _on_stage(self, stage: str, share: float) -> None:
        percent = f" {share:.0%}" if share else ""
        self._bar.update(self._task, stage=f"{self._label}: {stage}{percent}")

    def _on_finish(self, trial: TrialRecord, run: RunRecord) -> None:
        n_finished = sum(t.state != "running" for t in run.trials)
        self._bar.update(self._task, completed=n_finished, stage=self._eta(n_finished))
        if not self._quiet:
            line = f"[{n_finished}/{self._budget}] {trial.label}: {_outcome(trial, run)}"
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
            sys.stderr.flush()

    def _eta(self, n_finished: int) -> str:
        seconds = (time.monotonic() - self._started[0]) / len(self._started)
        left_s = seconds * max(0, self._budget - n_finished)
        return f"about {left_s / 60:.0f} min left" if left_s >= 60 else f"about {left_s:.0f} s left"


def _outcome(trial: TrialRecord, run: RunRecord) -> str:
    measured = trial.measurement
    if measured is None:
        return f"failed ({trial.reason})"
    parts = [f"{measured.accuracy:.2%}", f"{measured.size_bytes / 1000:,.1f} kB"]
    if measured.latency_ms is not None:
        parts.append(f"{measured.latency_ms:.3f} ms")
    baseline = run.baseline.measurement if run.baseline else None
    if baseline is not None and trial.role != "baseline":
        parts.append(f"{baseline.size_bytes / measured.size_bytes:.1f}x smaller")
        if measured.speedup is not None:
            parts.append(f"{measured.speedup:.2f}x speed")
    if any(t.number == trial.number for t in run.front()):
        parts.append("on the front")
    if measured.train_images_per_s:
        parts.append(f"{measured.train_images_per_s:,.0f} images/s")
    return ", ".join(parts)
