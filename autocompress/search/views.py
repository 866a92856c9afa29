"""The files that a run leaves beside its study: rebuilt from it at any time."""

from collections.abc import Callable

from autocompress.errors import AutocompressError
from autocompress.run_record import RunRecord
from autocompress.search.repeats import find_repeats
from autocompress.search.study import Study

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
