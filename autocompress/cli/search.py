"""`autocompress search`: run or continue a search."""

from pathlib import Path
from typing import Any

import click

from autocompress.cli.options import (
    json_option,
    limit_options,
    parse_shapes,
    print_json,
    runtime_options,
    target_option,
    task_arguments,
    task_options,
    track_option,
    with_target,
)
from autocompress.cli.runs import results_option
from autocompress.objective import OBJECTIVES, SIZE, all_costs, default_objectives, limits_of
from autocompress.quantities import parse_bytes, parse_seconds


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
    from rich.console import Console

    from autocompress.report.wording import run_argument
    from autocompress.terminal.tables import front_summary, points_table

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
    from autocompress.report.findings import cheapest_within

    if cheapest_within(run, run.feasible, SIZE):
        return "--max-drop 0.01"
    compressed = [trial.number for trial in run.front() if trial.role != "baseline"]
    return f"--trial {compressed[0]}" if compressed else ""


# The task and its arguments are kept apart; the rest belongs to one session.
NOT_KEPT = (
    *("task", "data", "task_args", "name", "results", "storage"),
    *("timeout", "track", "quiet", "as_json"),
)
# How trials are measured, as `EvaluationSettings` takes it.
SETTINGS = (
    *("threads", "runtime", "runtime_threads", "runtime_batch"),
    *("integer", "input_shapes", "device"),
)


@click.command()
@task_options
@click.option("--budget", default=50, show_default=True, help="Finished trials the run shall hold.")
@click.option(
    "--until-stalled",
    type=int,
    metavar="N",
    help="End when N searched trials in a row have not enlarged the front's hypervolume by 0.1 %.",
)
@click.option("--timeout", metavar="TIME", help="End after this time, such as 30m or 2h.")
@click.option("--run", "name", help="Name of the run folder; default: the task's name.")
@click.option("--seed", default=0, show_default=True, help="Seed of everything random.")
@click.option("--space", default="default", show_default=True, help="Search-space file or name.")
@click.option(
    "--objectives",
    default=default_objectives(),
    show_default=True,
    help="Axes of the front: accuracy, and at least one of "
    f"{', '.join(cost.name for cost in all_costs())}.",
)
@limit_options
@click.option(
    "--sampler",
    default="guided",
    show_default=True,
    help="guided (option table, surrogate, expected hypervolume), tpe, nsga2, gp or random.",
)
@click.option(
    "--proxy",
    default="standard",
    show_default=True,
    help="Tuning behind a trial: quick, standard, thorough or none, and settings of the recipe, "
    "such as quick,learning_rate=0.001.",
)
@click.option(
    "--without",
    metavar="PARTS",
    help="Parts of the search to leave out: table, seeds, surrogate, ladder.",
)
@click.option("--jobs", default=1, show_default=True, help="Trials at once.")
@click.option(
    "--threads", type=int, help="Threads of a trial's training; default: all cores, shared by jobs."
)
@target_option
@runtime_options
@click.option("--device", default="cpu", show_default=True, help="Where to train.")
@click.option(
    "--trial-timeout", default=7200.0, show_default=True, help="Seconds a trial may take."
)
@click.option(
    "--trial-memory",
    metavar="SIZE",
    help="Memory a trial may hold, such as 4GB; default: no limit.",
)
@click.option(
    "--executor",
    default="local",
    show_default=True,
    help="Evaluate in worker processes (local), in this one (inline), or on a Ray cluster (ray).",
)
@click.option("--ray-address", metavar="HOST:PORT", help="Ray cluster; default: this machine.")
@click.option(
    "--refine",
    type=int,
    default=0,
    metavar="K",
    help="Then train in full the K points of the front that dominate most; see `refine`.",
)
@click.option(
    "--storage",
    metavar="URL",
    envvar="AUTOCOMPRESS_STORAGE",
    show_envvar=True,
    help="Keep the study on a database server, such as postgresql://user@host/database, where "
    "several searches share its budget; default: SQLite in the run folder.",
)
@track_option
@click.option("--quiet", is_flag=True, help="No progress, only the result.")
@json_option("Print the front as JSON.")
@results_option
def command(**options: Any) -> None:
    """Search for the Pareto front of TASK and write it to results/RUN.

    TASK is `digits` (embedded), file.py (its function `task`), file.py:function or
    package.module:function. The same command again continues the run: it does the trials that are
    missing, or says that the budget is reached, or that the search is stalled. Points that break a
    limit count towards the budget but are never on the front. With one job a search can be repeated
    exactly; with several, what a proposal knows depends on which trial ends first.
    """
    from autocompress.errors import InputError
    from autocompress.executors.registry import Resources
    from autocompress.runs.options import SearchRequest, default_threads
    from autocompress.study.stop_rules import StopRules

    options = with_target(options)
    kept = _lasting(options)
    timeout = options.pop("timeout")
    rules = StopRules(
        budget=options.pop("budget"),
        until_stalled=options.pop("until_stalled"),
        timeout_s=None if timeout is None else parse_seconds("--timeout", timeout),
    )
    memory = options.pop("trial_memory")
    resources = Resources(
        jobs=options.pop("jobs"),
        timeout_s=options.pop("trial_timeout"),
        memory_bytes=None if memory is None else parse_bytes("--trial-memory", memory),
        ray_address=options.pop("ray_address"),
    )
    if options["refine"] < 0:
        raise InputError(f"`--refine` must be at least 0, but got {options['refine']}.")
    if options["threads"] is None:
        options["threads"] = default_threads(resources.jobs)
    kept["threads"] = options["threads"]  # which belongs to the run, however many jobs it has later
    settings = {name: options.pop(name) for name in SETTINGS}
    settings["input_shapes"] = parse_shapes(settings["input_shapes"])
    context = click.get_current_context(silent=True)
    source = context.get_parameter_source("storage") if context else None
    # a run that was begun before there was such a limit has none
    limits = limits_of({row.option: options.pop(row.option, None) for row in OBJECTIVES.values()})
    parts = (part.strip() for part in (options.pop("without") or "").split(","))
    shown = {name: options.pop(name) for name in ("refine", "quiet", "as_json")}
    arguments = task_arguments(options.pop("data"), options.pop("task_args"))
    request = SearchRequest(
        arguments=arguments,
        rules=rules,
        resources=resources,
        settings=settings,
        options=kept,
        limits=limits,
        without=frozenset(filter(None, parts)),
        is_usual_storage=source is click.core.ParameterSource.ENVIRONMENT,
        **options,
    )
    _search(request, **shown)


def _lasting(options: dict[str, Any]) -> dict[str, Any]:
    """What `resume` needs to repeat the command from another folder, as JSON."""
    kept = {name: value for name, value in options.items() if name not in NOT_KEPT}
    space = Path(kept["space"]).expanduser()
    return {**kept, "space": str(space.absolute()) if space.is_file() else kept["space"]}


def _search(request: Any, *, refine: int, quiet: bool, as_json: bool) -> None:
    from autocompress.errors import NoPointError
    from autocompress.runs.search_task import search_task
    from autocompress.terminal.refine_progress import refine_best
    from autocompress.terminal.search_progress import SearchProgress

    run = search_task(request, SearchProgress(request.rules, quiet=quiet))
    if refine:
        try:
            run = refine_best(run, refine, quiet=quiet)
        except NoPointError:  # the search's result stands
            print_result(run, as_json=as_json)
            raise
    print_result(run, as_json=as_json)
