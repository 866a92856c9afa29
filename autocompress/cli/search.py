"""`autocompress search`: run or continue a search."""

from typing import Any

import click

from autocompress.cli.options import (
    GroupedCommand,
    json_option,
    print_json,
    search_options,
    task_arguments,
    task_options,
    typed,
)
from autocompress.terminal.printing import echo, echo_line


@click.command(cls=GroupedCommand)
@task_options
@search_options()
@click.option("--quiet", is_flag=True, help="No progress, only the result.")
@json_option("Print the front as JSON.")
def command(
    task: str,
    data: str | None,
    task_args: tuple[str, ...],
    quiet: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Search for the Pareto front of TASK and write it to results/RUN.

    TASK is `digits` (embedded), file.py (its function `task`), file.py:function or
    package.module:function. The same command again continues the run: it does the trials that are
    missing, or says that the budget is reached, or that the search is stalled. Points that break a
    limit count towards the budget but are never on the front. With one job a search can be repeated
    exactly; with several, what a proposal knows depends on which trial ends first.
    """
    from autocompress.search_options import SearchOptions

    source = click.get_current_context().get_parameter_source("storage")
    options = SearchOptions.read(
        typed(given),
        task=task,
        arguments=task_arguments(data, task_args),
        is_usual_storage=source is click.core.ParameterSource.ENVIRONMENT,
    )
    run_search_command(options, quiet=quiet, as_json=as_json)


def run_search_command(options: Any, *, quiet: bool, as_json: bool) -> None:
    """Search, refine what was asked for, and print the front."""
    from autocompress.errors import NoPointError
    from autocompress.runs.search_task import search_task
    from autocompress.terminal.refine_progress import refine_as_asked
    from autocompress.terminal.search_progress import SearchProgress

    run = search_task(options, SearchProgress(options, quiet=quiet))
    try:
        run = refine_as_asked(run, options, quiet=quiet)
    except NoPointError:  # the search's result stands
        print_result(run, as_json=as_json)
        raise
    print_result(run, as_json=as_json)


def print_result(run: Any, *, as_json: bool) -> None:
    """Print the front; ends the command with exit code 4 if nothing keeps the limits."""
    from autocompress.errors import NoPointError
    from autocompress.report.tables import front_json
    from autocompress.report.wording import nothing_feasible

    problem = nothing_feasible(run)
    if as_json:
        print_json(front_json(run))
    else:
        _print_tables(run)
    if problem:
        raise NoPointError(problem, "Nothing is lost: a larger --budget goes on looking.")


def _print_tables(run: Any) -> None:
    from autocompress.report.wording import run_argument
    from autocompress.terminal.printing import make_console
    from autocompress.terminal.tables import front_summary, points_table

    console = make_console(highlight=False)
    console.print(front_summary(run))
    if run.refined:
        console.print(points_table(run, run.refined))
    echo("", err=True)
    echo_line(f"Report   {run.folder / 'report.html'}", err=True)
    echo_line(f"Tables   {run.folder / 'front.csv'}, {run.folder / 'trials.csv'}", err=True)
    point = _point_to_export(run)
    if point:
        echo_line(f"Export   autocompress export {run_argument(run)} {point}", err=True)


def _point_to_export(run: Any) -> str:
    """Options of `export` that choose a point this run has; nothing if it only has the baseline."""
    from autocompress.objective import SIZE
    from autocompress.report.findings import cheapest_within

    if cheapest_within(run, run.feasible, SIZE):
        return "--max-drop 0.01"
    compressed = [trial.number for trial in run.front() if trial.role != "baseline"]
    return f"--trial {compressed[0]}" if compressed else ""
