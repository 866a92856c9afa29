"""Live progress of a search on stderr: a display on a terminal, one line per trial elsewhere."""

import dataclasses
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import click
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from autocompress.report.findings import (
    cheapest_within,
    cost_objectives,
    cost_of,
    gain,
    is_level_with_baseline,
)
from autocompress.report.wording import violation_words
from autocompress.run_record import RunRecord, TrialRecord
from autocompress.search_options import SearchOptions
from autocompress.study.listener import Listener
from autocompress.study.stop_rules import Ending
from autocompress.terminal.progress_bar import duration_words, is_watched
from autocompress.terminal.tables import points_table, printable


class Pace:
    """Counts finished trials of one session against the time they took.

    Args:
        clock: Seconds since whenever.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began_s: float | None = None
        self._last_s = 0.0
        self._apart_s = 0.0
        self._n_before = 0
        self._n_finished = 0

    def begin(self, n_finished: int) -> None:
        """Note how many trials earlier sessions have finished."""
        self._n_before = self._n_finished = n_finished

    def start(self) -> None:
        """A trial begins; the first one starts the clock."""
        if self._began_s is None:
            self._began_s = self._clock()

    def finish(self, n_finished: int) -> None:
        """Note how many trials there are now, those of other drivers included."""
        self._n_finished, self._last_s = n_finished, self._clock()

    def leave_out(self, seconds: float) -> None:
        """Do not count time in which nothing but something else was done."""
        self._apart_s += seconds
        self._last_s += seconds

    @property
    def trial_s(self) -> float | None:
        """Seconds from one finished trial to the next, on average; None before the first."""
        n_done = self._n_finished - self._n_before
        if self._began_s is None or n_done <= 0:
            return None
        return max(0.0, self._last_s - self._began_s - self._apart_s) / n_done

    @property
    def trials_per_hour(self) -> float | None:
        """Finished trials in an hour; None before the first."""
        return 3600.0 / self.trial_s if self.trial_s else None

    def left_s(self, budget: int) -> float | None:
        """Seconds until there are `budget` finished trials, less what went by since the last."""
        if self.trial_s is None:
            return None
        planned_s = self.trial_s * max(0, budget - self._n_finished)
        return max(0.0, planned_s - (self._clock() - self._last_s))


_TABLE_LINES = 8
_LEAST_LINES = 3
_BAR_COLUMNS = 24


@dataclasses.dataclass(slots=True, kw_only=True)
class RunningTrials:
    """A trial that runs.

    Attributes:
        label: What to call it.
        stage: What is being done; empty before it is known.
        share: How much of the stage is done, in [0, 1]; 0 where it does not say.
    """

    label: str
    stage: str = ""
    share: float = 0.0


class LiveView:
    """Drawn anew a few times a second; whoever drives it changes its attributes.

    Args:
        budget: Finished trials the run shall hold.
        pace: How fast it goes.

    Attributes:
        running: Number -> trial under way.
        aside: What is done besides trials, in words; empty for nothing.
    """

    def __init__(self, budget: int, pace: Pace) -> None:
        self.running: dict[int, RunningTrials] = {}
        self.aside = ""
        self._budget = budget
        self._pace = pace
        self._n_finished = 0
        self._facts = ""
        self._points: Table | None = None
        self._began_s = time.monotonic()

    def show(self, run: RunRecord) -> None:
        """Take over what a run has found so far."""
        self._n_finished = run.n_finished
        self._facts = facts_of(run)
        points = best_points(run)
        names, trials = [name for name, _ in points], [trial for _, trial in points]
        self._points = points_table(run, trials, names) if points else None

    def summary(self) -> str:
        """What there is to say in one line."""
        rate, left_s = self._pace.trials_per_hour, self._pace.left_s(self._budget)
        parts = [self._facts] if self._facts else []
        if rate is not None:
            parts.append(f"{rate:,.0f} trials/h")
        if left_s is not None and not self.aside and self._n_finished < self._budget:
            parts.append(f"about {duration_words(left_s)} left")
        return ", ".join(parts)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """As much as the terminal has room for: the trials under way before the points."""
        n_free = (options.height or console.height) - _LEAST_LINES
        parts: list[RenderableType] = [self._header(options.max_width)]
        if summary := self.summary():
            parts.append(Text(summary))
        if self._points is not None and n_free >= _TABLE_LINES + min(len(self.running), 2):
            parts.append(self._points)
            n_free -= _TABLE_LINES
        if self.aside:
            parts.append(Text(self.aside, style="cyan"))
        parts.append(self._trials(max(1, n_free - 1)))
        yield Group(*parts)

    def _header(self, width: int) -> Table:
        table = Table.grid(padding=(0, 1))
        elapsed_s = int(time.monotonic() - self._began_s)
        elapsed = f"{elapsed_s // 3600}:{elapsed_s // 60 % 60:02}:{elapsed_s % 60:02}"
        bar = ProgressBar(
            total=self._budget,
            completed=min(self._n_finished, self._budget),
            width=max(10, min(40, width - 40)),
        )
        table.add_row("Searching", bar, f"{self._n_finished}/{self._budget}", elapsed)
        return table

    def _trials(self, n_lines: int) -> Table:
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True, overflow="ellipsis", max_width=30)
        table.add_column(no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        table.add_column(no_wrap=True)
        trials = [self.running[number] for number in sorted(self.running)]
        n_shown = len(trials) if len(trials) <= n_lines else n_lines - 1
        for trial in trials[:n_shown]:
            bar = ProgressBar(total=1.0, completed=trial.share, width=_BAR_COLUMNS)
            is_told = trial.share > 0.0
            table.add_row(
                Text(trial.label, style="bold"),
                Text(trial.stage or "starting"),
                f"{trial.share:.0%}" if is_told else "",
                bar if is_told else "",
            )
        if n_shown < len(trials):
            table.add_row(f"and {len(trials) - n_shown} more", "", "", "")
        return table


def facts_of(run: RunRecord) -> str:
    """Hypervolume and what did not become a point, in one line."""
    parts = []
    if run.baseline is not None:
        parts.append(f"hypervolume {run.hypervolume(run.front()):.2f}")
    for state, words in (("failed", "failed"), ("stopped", "stopped early")):
        if n_trials := sum(trial.state == state for trial in run.trials):
            parts.append(f"{n_trials} {words}")
    return ", ".join(parts)


def best_points(run: RunRecord) -> list[tuple[str, TrialRecord]]:
    """The points people ask for first, each with what it is best at; the baseline above them.

    The names are as short as they are so that the table fits 80 columns.
    """
    knee = run.knee()
    found = [("baseline", run.baseline)]
    for cost in cost_objectives(run):
        cheapest = cheapest_within(run, run.feasible, cost)
        found.append((f"{cost.best} at -1 pt", cheapest))
    found.append(("best trade-off", None if knee is None or knee.role == "baseline" else knee))
    found.append(("nearest miss", run.nearest_miss()))
    return [(name, trial) for name, trial in found if trial is not None]


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
        self._console = Console(stderr=True, highlight=False)
        self._pace = Pace()
        self._view = LiveView(options.budget, self._pace)
        # transient: what remains in the terminal's history is a line per trial
        self._live = Live(self._view, console=self._console, transient=True, refresh_per_second=4)
        self._is_live = is_watched(self._console) and not quiet
        self._has_started = self._is_waiting = False
        self._n_finished = 0
        self._options_began = 0.0
        self._options_told = 0

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
            click.echo(text, err=True)

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
            self._options_told += 1
            seconds = (time.monotonic() - self._options_began) / self._options_told
            left = f", about {duration_words(seconds * (n_plans - n_known))} left"
        else:
            self._options_began = time.monotonic()
        self._view.aside = f"Sensitivity table: {n_known} of {n_plans} plans{left}"
        if n_known == n_plans:
            self._view.aside = ""
            self._pace.leave_out(time.monotonic() - self._options_began)

    def _on_start(self, number: int, label: str) -> None:
        self._has_started, self._is_waiting = True, False
        self._pace.start()
        self._view.aside = ""
        self._view.running[number] = RunningTrials(label=printable(label))

    def _on_stage(self, number: int, stage: str, share: float) -> None:
        if (trial := self._view.running.get(number)) is not None:
            trial.stage, trial.share = printable(stage), share

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
            self._console.print(printable(line), markup=False, soft_wrap=True)
        else:
            click.echo(printable(line), err=True)


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
