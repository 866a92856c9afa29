"""Tells trackers of finished trials, and never lets one of them hold a search up."""

import queue
import threading
from collections.abc import Callable, Mapping, Set
from typing import Final, Self

from autocompress.errors import AutocompressError
from autocompress.run_record import RunRecord, TrialRecord
from autocompress.runs.tracking.tracker import (
    TrackedRun,
    TrackedTrial,
    Tracker,
    progress_of,
)
from autocompress.study.listener import Listener

_PATIENCE_S: Final = 20.0
_Item = tuple[TrackedTrial, dict[str, float], int]


class Tracking:
    """Trackers of one search, each with a thread of its own; a context manager.

    Args:
        trackers: What to call each -> tracker.
        warn: Told, once, that one of them has failed.
        patience_s: Seconds that a tracker has for what is left at the end.
    """

    def __init__(
        self,
        trackers: Mapping[str, Tracker],
        warn: Callable[[str], None],
        *,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        self.listener = Listener(on_finish=self._on_finish)
        self._feeds = [_Feed(*named, warn, patience_s) for named in trackers.items()]

    def begin(self, run: RunRecord) -> None:
        """Open all, and write the finished trials that one of them has not got yet.

        Raises:
            InputError: If one cannot write where it is told to.
        """
        for feed in self._feeds:
            feed.begin(run)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Wait for what is on its way, but not for long."""
        for feed in self._feeds:
            feed.end()

    def _on_finish(self, trial: TrialRecord, run: RunRecord) -> None:
        for feed in self._feeds:
            feed.put(run, trial)


class _Feed:
    """What one tracker is to be told, in order."""

    def __init__(
        self, name: str, tracker: Tracker, warn: Callable[[str], None], patience_s: float
    ) -> None:
        self._name = name
        self._tracker = tracker
        self._warn = warn
        self._patience_s = patience_s
        self._numbers: Set[int] = frozenset()
        self._items: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True, name=f"track {name}")

    def begin(self, run: RunRecord) -> None:
        self._numbers = frozenset(self._tracker.open(TrackedRun.of(run)))
        self._thread.start()
        for trial in run.trials:
            if trial.is_finished:
                self.put(run, trial)

    def put(self, run: RunRecord, trial: TrialRecord) -> None:
        if trial.number in self._numbers:
            return
        self._numbers |= {trial.number}
        progress = progress_of(run, self._numbers)
        self._items.put((TrackedTrial.of(run, trial), progress, len(self._numbers)))

    def end(self) -> None:
        if not self._thread.ident:
            return
        self._items.put(None)
        self._thread.join(self._patience_s)
        if self._thread.is_alive():
            self._warn(
                f"{self._name} has not taken all trials in time. The same command writes the rest."
            )

    def _work(self) -> None:
        try:
            while (item := self._items.get()) is not None:
                self._tracker.log(*item)
            self._tracker.close()
        except AutocompressError as error:
            self._warn(
                f"{error.message} The search goes on without {self._name}; the same command "
                "writes what is missing there."
            )
