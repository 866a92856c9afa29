"""Live progress of a search on stderr: a display on a terminal, one line per trial elsewhere."""

import time
from types import TracebackType
from typing import Self

from rich.live import Live

from autocompress.errors import one_line
from autocompress.report.findings import (
    cost_of,
    gain,
    is_level_with_baseline,
)
from autocompress.report.wording import violation_words
from autocompress.run_record import RunRecord, TrialRecord
from autocompress.search_options import SearchOptions
from autocompress.study.listener import Listener
from autocompress.study.stop_rules import Ending
from autocompress.terminal.live_view import LiveView, Pace, RunningTrial
from autocompress.terminal.printing import echo_line, make_console
from autocompress.terminal.progress_bar import duration_words, is_watched

_SUMMED_UP_EVERY = 10


class SearchProgress:
    """Shows what a search does; a context manager while it runs.

    Args:
        options: Those of the search.
        quiet: Whether to show nothing but warnings.
    """

    def __init__(self, options: SearchOptions, *, quiet: bool) -> None:
        self.listener = Listener(
            on_start=self._on_start,
            on_stage=self._on_stage,
            on_finish=self._on_finish,
            on_wait=self._on_wait,
            on_end=self._on_end,
        )
        self._options = options
        self._quiet = quiet
        self._console = make_console(stderr=True, highlight=False)
        self._pace = Pace()
        self._view = LiveView(options.budget, self._pace)
        # transient: what remains in the terminal's history is a line per trial
        self._live = Live(self._view, console=self._console, transient=True, refresh_per_second=4)
        self._is_live = is_watched(self._console) and not quiet
        self._has_started = self._is_waiting = False
        self._n_finished = 0
        self._table_began = 0.0
        self._levels_told = 0

    def __enter__(self) -> Self:
        if self._is_live:
            self._live.start(refresh=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def note(self, text: str) -> None:
        """Say something in passing."""
        if not self._quiet:
            echo_line(text, err=True)

    def warn(self, text: str) -> None:
        """Say something that must be seen."""
        self._echo(f"Warning: {text}")

    def begin(self, run: RunRecord) -> None:
        """Say what lies ahead."""
        self._n_finished = run.n_finished
        self._pace.begin(run.n_finished)
        self._view.show(run)
        verb = f"Continuing after {run.n_finished} trials" if run.n_finished else "Starting"
        self.note(f"{verb}: {len(run.knobs)} knobs, budget {self._options.budget}, in {run.folder}")

    def tell_level(self, n_known: int, n_plans: int, label: str) -> None:
        """Show how far the sensitivity table is."""
        if not label and n_known < n_plans:
            self._print(
                f"Measuring {n_plans - n_known} plans for the sensitivity table, without training"
            )
        left = ""
        if label:
            self._levels_told += 1
            seconds = (time.monotonic() - self._table_began) / self._levels_told
            left = f", about {duration_words(seconds * (n_plans - n_known))} left"
        else:
            self._table_began = time.monotonic()
        self._view.aside = f"Sensitivity table: {n_known} of {n_plans} plans{left}"
        if n_known == n_plans:
            self._view.aside = ""
            self._pace.leave_out(time.monotonic() - self._table_began)

    def _on_start(self, number: int, label: str) -> None:
        self._has_started, self._is_waiting = True, False
        self._pace.start()
        self._view.aside = ""
        self._view.running[number] = RunningTrial(label=one_line(label))

    def _on_stage(self, number: int, stage: str, share: float) -> None:
        if (trial := self._view.running.get(number)) is not None:
            trial.stage, trial.share = one_line(stage), share

    def _on_finish(self, trial: TrialRecord, run: RunRecord) -> None:
        self._n_finished = run.n_finished
        self._pace.finish(run.n_finished)
        finished = {t.number for t in run.trials if t.is_finished}
        # one that another driver has taken over ends without a word
        self._view.running = {
            number: t for number, t in self._view.running.items() if number not in finished
        }
        counted = f"[{run.n_finished}/{self._options.budget}]"
        self._print(f"{counted} {trial.label}: {_outcome(trial, run)}")
        if self._is_live or run.n_finished % _SUMMED_UP_EVERY == 0:
            self._view.show(run)
        if not self._is_live and run.n_finished % _SUMMED_UP_EVERY == 0:
            self._print(f"So far: {self._view.summary()}")

    def _on_wait(self, n_elsewhere: int) -> None:
        what = f"trials elsewhere: {n_elsewhere}" if n_elsewhere else "options measured elsewhere"
        if not self._is_waiting:
            self._print(f"Waiting for another driver ({what}).")
        self._is_waiting = True
        self._view.aside = f"Waiting for another driver: {what}"

    def _on_end(self, ending: Ending) -> None:
        """Say why it ended and how to go on; a budget that was just used up explains itself."""
        budget = self._options.budget
        if ending == "budget" and not self._has_started:
            self._print(f"The budget of {budget} trials is reached; nothing was left to do.")
        elif ending == "exhausted":
            self._print("The search space is exhausted: every plan in it has been measured.")
        elif ending == "stalled":
            self._print(
                f"Stalled after {self._n_finished} trials: the last {self._options.until_stalled} "
                "searched ones did not raise the hypervolume by 0.1 %. The same command with a "
                "larger --until-stalled, or without it, goes on."
            )
        elif ending == "timeout":
            self._print(
                f"The time is up: {self._n_finished} of {budget} trials are finished. The same "
                "command goes on."
            )

    def _print(self, line: str) -> None:
        if not self._quiet:
            self._echo(line)

    def _echo(self, line: str) -> None:
        """Write a line, above the display if there is one."""
        if self._live.is_started:
            self._console.print(one_line(line), soft_wrap=True)
        else:
            echo_line(line, err=True)


def _outcome(trial: TrialRecord, run: RunRecord) -> str:
    measured = trial.measurement
    if trial.state == "stopped":
        return f"stopped early: {trial.reason}"
    if measured is None:
        return f"failed ({trial.reason})"
    costs = [(c, value) for c in run.shown_costs if (value := cost_of(trial, c)) is not None]
    parts = [f"{measured.accuracy:.2%}", *(cost.quantity.write(value) for cost, value in costs)]
    for cost, _ in costs if run.baseline and trial.role != "baseline" else ():
        if (ratio := gain(run, trial, cost)) is not None:
            sign = "~" if is_level_with_baseline(run, trial, cost) else ""
            parts.append(f"{sign}{ratio:.{1 if ratio >= 10 else 2}f}x {cost.better}")
    if any(t.number == trial.number for t in run.front()):
        parts.append("on the front")
    parts += violation_words(run, trial)
    if measured.train_images_per_s:
        parts.append(f"{measured.train_images_per_s:,.0f} images/s")
    return ", ".join(parts)
