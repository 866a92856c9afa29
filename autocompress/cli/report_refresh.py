"""The report of a search that is still running: written anew every now and then."""

import dataclasses
import time
from collections.abc import Callable

import click

from autocompress.run_record import RunRecord, TrialRecord
from autocompress.search.listener import Listener

EVERY_S = 20.0
"""Seconds between two writings, at least."""

# Writing may take no more than this share of a search's time: the page of a long run is not cheap.
_MOST_SHARE = 0.02


def refreshing(listener: Listener, clock: Callable[[], float] = time.monotonic) -> Listener:
    """The same listener, which also rewrites `report.html` when trials finish.

    A page that cannot be written must not end a search: one warning is printed, and the search goes
    on without; at its end the report is written in any case.

    Args:
        listener: Told first.
        clock: Seconds since whenever.
    """
    refresher = _Refresher(clock)

    def on_finish(trial: TrialRecord, run: RunRecord) -> None:
        listener.on_finish(trial, run)
        refresher.refresh(run)

    return dataclasses.replace(listener, on_finish=on_finish)


class _Refresher:
    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._next_s = clock() + EVERY_S  # a short search has its report at the end soon enough
        self._is_broken = False

    def refresh(self, run: RunRecord) -> None:
        """Write the page of a run if it is time to."""
        began = self._clock()
        if self._is_broken or began < self._next_s:
            return
        from autocompress.report.page import write_report

        try:
            write_report(run, run.folder / "report.html")
        except Exception as error:  # noqa: BLE001 - no page is worth a search
            self._is_broken = True
            click.echo(
                f"Warning: the report is not refreshed any more during this search: {error}",
                err=True,
            )
        ended = self._clock()
        self._next_s = ended + max(EVERY_S, (ended - began) / _MOST_SHARE)
