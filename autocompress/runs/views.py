"""The files that a run leaves beside its study: rebuilt from it at any time."""

import dataclasses
import time
from collections.abc import Callable

from autocompress.errors import AutocompressError
from autocompress.run_record import RunRecord, TrialRecord
from autocompress.runs.repeats import find_repeats
from autocompress.study.listener import Listener
from autocompress.study.study import Study

EVERY_S = 20.0
"""Seconds between two writings, at least."""

# Writing may take no more than this share of a search's time: the page of a long run is not cheap.
_MOST_SHARE = 0.02


def refreshing(
    listener: Listener,
    warn: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
) -> Listener:
    """The same listener, which also rewrites `report.html` when trials finish.

    A page that cannot be written must not end a search: `warn` is told once, and the search goes
    on without; at its end the report is written in any case.

    Args:
        listener: Told first.
        warn: Told if the page cannot be written.
        clock: Seconds since whenever.
    """
    refresher = _Refresher(warn, clock)

    def on_finish(trial: TrialRecord, run: RunRecord) -> None:
        listener.on_finish(trial, run)
        refresher.refresh(run)

    return dataclasses.replace(listener, on_finish=on_finish)


class _Refresher:
    def __init__(self, warn: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._warn = warn
        self._clock = clock
        self._next_s = clock() + EVERY_S  # a short search has its report at the end soon enough
        self._is_broken = False

    def refresh(self, run: RunRecord) -> None:
        """Write the page of a run if it is time to."""
        began = self._clock()
        if self._is_broken or began < self._next_s:
            return
        from autocompress.report.page import write_report  # workers import this room

        try:
            write_report(run, run.folder / "report.html")
        except Exception as error:  # noqa: BLE001 - no page is worth a search
            self._is_broken = True
            self._warn(f"the report is not refreshed any more during this search: {error}")
        ended = self._clock()
        self._next_s = ended + max(EVERY_S, (ended - began) / _MOST_SHARE)


Warn = Callable[[str], None]


def write_views(run: RunRecord, warn: Warn) -> None:
    """Write `trials.csv`, `front.csv` and `report.html`; a full disk must not hide the result.

    Args:
        run: The run.
        warn: Told what could not be written.
    """
    # here, not above: workers import this room, and never draw
    from autocompress.report.page import write_report
    from autocompress.report.tables import front_table, trials_table, write_csv

    try:
        write_csv(trials_table(run), run.folder / "trials.csv")
        write_csv(front_table(run), run.folder / "front.csv")
        write_report(run, run.folder / "report.html", find_repeats(run))
    except (AutocompressError, OSError) as error:
        warn(f"the report could not be written: {error}")


def write_study_views(study: Study, warn: Warn) -> None:
    """Write the views of a study at its end, however it came.

    A server that is away is not waited for once more.
    """
    try:
        run = study.record(is_patient=False)
    except AutocompressError as error:
        warn(f"the report is not written. {error.message}")
    else:
        write_views(run, warn)
