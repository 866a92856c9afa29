"""`autocompress report`: a run as one HTML file that needs no network."""

from pathlib import Path

import click

from autocompress.cli.front import require_a_point
from autocompress.cli.runs import resolve_run, results_option


@click.command(short_help="Write a run's report as one HTML file.")
@click.argument("run", required=False)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to write it; report.html in the run folder by default.",
)
@results_option
def command(run: str | None, output: Path | None, results: Path) -> None:
    """Write the report of RUN (the newest run if none is named) and print its path.

    The page holds the front by size, by latency and in three dimensions, the progress of the
    search, the choices of the front's members, what each level does alone, which knobs matter, what
    searching gained over the controls, what failed and how all was measured. A click on a point
    opens its card, with its plan layer by layer and the commands that refine and export it; the
    card's address ends in #trial-N. Runs beside it that differ only in their seed are found by
    themselves and give error bars. A run without any finished trial gets a page that says so; the
    exit code is then 4.
    """
    from autocompress.report.page import write_report
    from autocompress.search.records import load_run
    from autocompress.search.repeats import find_repeats

    record = load_run(resolve_run(run, results))
    path = output or record.folder / "report.html"
    write_report(record, path, find_repeats(record))
    click.echo(path)
    require_a_point(record)
