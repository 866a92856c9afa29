"""How fast a search goes, and how long it will still take."""

import time
from collections.abc import Callable


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
