"""Live progress of a search on stderr: a bar on a terminal, one line per trial elsewhere."""

import sys
import time

import click

from autocompress.cli.live_bar import LiveBar
from autocompress.report.limits import violation_words
from autocompress.run_record import RunRecord, TrialRecord
from autocompress.search.listener import Listener
from autocompress.search.stop_rules import Ending, StopRules


class SearchProgress(LiveBar):
    """Shows what a search does; a context manager while it runs.

    Args:
        rules: What ends the search.
        quiet: Whether to show nothing but warnings.
    """

    def __init__(self, rules: StopRules, *, quiet: bool) -> None:
        self._rules = rules
        super().__init__("Searching", rules.budget, quiet=quiet)
        self._labels: dict[int, str] = {}
        self._started: list[float] = []
        self.listener = Listener(
            on_start=self._on_start,
            on_stage=self._on_stage,
            on_finish=self._on_finish,
            on_wait=self._on_wait,
            on_end=self._on_end,
        )
        self._is_waiting = False
        self._n_finished = 0
        self._options_began = 0.0
        self._options_told = 0
        self._options_s = 0.0

    def note(self, text: str) -> None:
        """Say something in passing."""
        if not self._quiet:
            click.echo(text, err=True)

    def warn(self, text: str) -> None:
        """Say something that must be seen."""
        click.echo(f"Warning: {text}", err=True)

    def begin(self, run: RunRecord) -> None:
        """Say what lies ahead."""
        self._n_finished = run.n_finished
        self._bar.update(self._task, completed=run.n_finished)
        verb = f"Continuing after {run.n_finished} trials" if run.n_finished else "Starting"
        self.note(f"{verb}: {len(run.knobs)} knobs, budget {self._rules.budget}, in {run.folder}")

    def tell_option(self, n_known: int, n_plans: int, label: str) -> None:
        """Show how far the option table is."""
        if not label and n_known < n_plans:
            self._print(f"Looking at {n_plans - n_known} single options, without training")
        left = ""
        if label:
            self._options_told += 1
            seconds = (time.monotonic() - self._options_began) / self._options_told
            left = f", about {seconds * (n_plans - n_known):.0f} s left"
        else:
            self._options_began = time.monotonic()
        self._bar.update(self._task, stage=f"option {n_known} of {n_plans}{left}")
        if n_known == n_plans:
            self._options_s = time.monotonic() - self._options_began

    def _on_start(self, number: int, label: str) -> None:
        self._labels[number] = label
        self._started.append(time.monotonic())
        self._is_waiting = False
        self._bar.update(self._task, stage=label)

    def _on_stage(self, number: int, stage: str, share: float) -> None:
        percent = f" {share:.0%}" if share else ""
        self._bar.update(self._task, stage=f"{self._labels[number]}: {stage}{percent}")

    def _on_finish(self, trial: TrialRecord, run: RunRecord) -> None:
        self._n_finished = run.n_finished
        self._bar.update(self._task, completed=run.n_finished, stage=self._eta())
        counted = f"[{run.n_finished}/{self._rules.budget}]"
        self._print(f"{counted} {trial.label}: {_outcome(trial, run)}")

    def _on_wait(self, n_elsewhere: int) -> None:
        what = f"trials elsewhere: {n_elsewhere}" if n_elsewhere else "options measured elsewhere"
        if not self._is_waiting:
            self._print(f"Waiting for another driver ({what}).")
        self._is_waiting = True
        self._bar.update(self._task, stage=what)

    def _on_end(self, ending: Ending) -> None:
        """Say why it ended and how to go on; a budget that was just used up explains itself."""
        budget = self._rules.budget
        if ending == "budget" and not self._started:
            self._print(f"The budget of {budget} trials is reached; nothing was left to do.")
        elif ending == "exhausted":
            self._print("The search space is exhausted: every plan in it has been measured.")
        elif ending == "stalled":
            self._print(
                f"Stalled after {self._n_finished} trials: the last {self._rules.until_stalled} "
                "searched ones did not raise the hypervolume by 0.1 %. The same command with a "
                "larger --until-stalled, or without it, goes on."
            )
        elif ending == "timeout":
            self._print(
                f"The time is up: {self._n_finished} of {budget} trials are finished. The same "
                "command goes on."
            )

    def _print(self, line: str) -> None:
        """Write a line above the bar."""
        if not self._quiet:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
            sys.stderr.flush()

    def _eta(self) -> str:
        in_trials = time.monotonic() - self._started[0] - self._options_s
        seconds = in_trials / len(self._started)
        left_s = seconds * max(0, self._rules.budget - self._n_finished)
        return f"about {left_s / 60:.0f} min left" if left_s >= 60 else f"about {left_s:.0f} s left"


def _outcome(trial: TrialRecord, run: RunRecord) -> str:
    measured = trial.measurement
    if trial.state == "stopped":
        return f"stopped early: {trial.reason}"
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
    parts += violation_words(run, trial)
    if measured.train_images_per_s:
        parts.append(f"{measured.train_images_per_s:,.0f} images/s")
    return ", ".join(parts)
