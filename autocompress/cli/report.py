"""`autocompress report`: a run as one HTML file that needs no network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from autocompress.cli.front import require_a_point
from autocompress.cli.runs import resolve_run, results_option
from autocompress.terminal.printing import echo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autocompress.report.pictures import Format
    from autocompress.run_record import RunRecord


@click.command(short_help="Write a run's report as one HTML file.")
@click.argument("run", required=False)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to write it; report.html in the run folder by default.",
)
@click.option(
    "--png",
    "png_folder",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also write each figure as a PNG file into this folder.",
)
@click.option(
    "--svg",
    "svg_folder",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also write each figure as an SVG file into this folder.",
)
@results_option
def command(
    run: str | None,
    output: Path | None,
    png_folder: Path | None,
    svg_folder: Path | None,
    results: Path,
) -> None:
    """Write the report of RUN (the newest run if none is named) and print its path.

    The page holds the front by size, by latency and in three dimensions, the progress of the
    search, the choices of the front's members, what each level does alone, which knobs matter, what
    searching gained over the controls, what failed and how all was measured. A click on a point
    opens its card, with its plan layer by layer and the commands that refine and export it; the
    card's address ends in #trial-N. Runs beside it that differ only in their seed are found by
    themselves and give error bars. A run without any finished trial gets a page that says so; the
    exit code is then 4.

    Pictures need the extra `figures` (pip install 'autocompress[figures]') and a Chromium or
    Chrome; the environment variable BROWSER_PATH names one that is not found.
    """
    from autocompress.report.page import write_report
    from autocompress.runs.repeats import find_repeats
    from autocompress.study.records import load_run

    record = load_run(resolve_run(run, results))
    path = output or record.folder / "report.html"
    repeats = find_repeats(record)
    write_report(record, path, repeats)
    echo(path)
    require_a_point(record)
    _write_pictures(record, repeats, {"png": png_folder, "svg": svg_folder})


def _write_pictures(
    record: RunRecord, repeats: Sequence[RunRecord], folders: dict[Format, Path | None]
) -> None:
    """Draw each figure in each format that is asked for, and print the files' paths."""
    wanted = {kind: folder for kind, folder in folders.items() if folder is not None}
    if not wanted:
        return
    from autocompress.report.pictures import all_figures, write_pictures

    figures = all_figures(record, repeats)
    for kind, folder in wanted.items():
        for path in write_pictures(figures, folder, kind):
            echo(path)
