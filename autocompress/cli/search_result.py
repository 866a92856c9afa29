"""What `autocompress search` ends with: the front on the terminal."""

from typing import Any

import click

from autocompress.cli.json_output import print_json


def print_result(run: Any, *, as_json: bool) -> None:
    """Print the front; ends the command with exit code 4 if nothing keeps the limits."""
    from autocompress.errors import NoPointError
    from autocompress.report.limits import nothing_feasible
    from autocompress.report.tables import front_json

    problem = nothing_feasible(run)
    if as_json:
        print_json(front_json(run))
    else:
        _print_tables(run)
    if problem:
        raise NoPointError(problem, "Nothing is lost: a larger --budget goes on looking.")


def _print_tables(run: Any) -> None:
    from rich.console import Console

    from autocompress.cli.front import front_summary, points_table
    from autocompress.report.shell_names import run_argument

    console = Console(highlight=False)
    console.print(front_summary(run))
    if run.refined:
        console.print(points_table(run, run.refined))
    click.echo(f"\nReport   {run.folder / 'report.html'}", err=True)
    click.echo(f"Tables   {run.folder / 'front.csv'}, {run.folder / 'trials.csv'}", err=True)
    point = _point_to_export(run)
    if point:
        click.echo(f"Export   autocompress export {run_argument(run)} {point}", err=True)


def _point_to_export(run: Any) -> str:
    """Options of `export` that choose a point this run has; nothing if it only has the baseline."""
    from autocompress.objective import OBJECTIVES
    from autocompress.report.findings import cheapest_within

    if cheapest_within(run, run.feasible, OBJECTIVES["size"]):
        return "--max-drop 0.01"
    compressed = [trial.number for trial in run.front() if trial.role != "baseline"]
    return f"--trial {compressed[0]}" if compressed else ""
