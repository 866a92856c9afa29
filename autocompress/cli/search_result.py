"""What `autocompress search` leaves: views of the study, and the front on the terminal."""

import json
from typing import Any

import click


def write_views(run: Any) -> None:
    """Rebuild CSV and HTML from the study; a full disk must not hide the result."""
    from autocompress.errors import AutocompressError
    from autocompress.report.page import write_report
    from autocompress.report.tables import front_table, trials_table, write_csv
    from autocompress.search.repeats import find_repeats

    try:
        write_csv(trials_table(run), run.folder / "trials.csv")
        write_csv(front_table(run), run.folder / "front.csv")
        write_report(run, run.folder / "report.html", find_repeats(run))
    except (AutocompressError, OSError) as error:
        click.echo(f"Warning: the report could not be written: {error}", err=True)


def print_result(run: Any, *, as_json: bool) -> None:
    """Print the front; ends the command with exit code 4 if nothing keeps the limits."""
    from autocompress.errors import NoPointError
    from autocompress.report.limits import nothing_feasible
    from autocompress.report.tables import front_json

    problem = nothing_feasible(run)
    if as_json:
        click.echo(json.dumps(front_json(run), indent=2))
    else:
        _print_tables(run)
    if problem:
        raise NoPointError(problem, "Nothing is lost: a larger --budget goes on looking.")


def _print_tables(run: Any) -> None:
    from rich.console import Console

    from autocompress.cli.front import front_summary, points_table

    console = Console(highlight=False)
    console.print(front_summary(run))
    if run.refined:
        console.print(points_table(run, run.refined))
    click.echo(f"\nReport   {run.folder / 'report.html'}", err=True)
    click.echo(f"Tables   {run.folder / 'front.csv'}, {run.folder / 'trials.csv'}", err=True)
    if run.front():
        click.echo(f"Export   autocompress export {run.folder} --max-drop 0.01", err=True)


def write_study_views(study: Any) -> None:
    """Write the views of a study at its end, however it came.

    A server that is away is not waited for once more.
    """
    from autocompress.errors import AutocompressError

    try:
        run = study.record(is_patient=False)
    except AutocompressError as error:
        click.echo(f"Warning: the report is not written. {error.message}", err=True)
    else:
        write_views(run)
