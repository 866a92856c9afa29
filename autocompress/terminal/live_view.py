"""What a terminal shows while a search runs: best points, pace, and trials that run."""

import dataclasses
import time
from collections.abc import Callable

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from autocompress.report.findings import (
    cheapest_within,
    cost_objectives,
)
from autocompress.run_record import RunRecord, TrialRecord
from autocompress.terminal.progress_bar import duration_words
from autocompress.terminal.tables import points_table


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
class RunningTrial:
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
        self.running: dict[int, RunningTrial] = {}
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
