"""`autocompress search`: run or continue a search."""

import dataclasses
from pathlib import Path
from typing import Any

import click

from autocompress.cli.limit_options import limit_options, limits_of
from autocompress.cli.quantities import parse_bytes, parse_seconds
from autocompress.cli.runs import results_option, run_name
from autocompress.cli.runtime_options import (
    parse_shapes,
    runtime_options,
    settled_integer,
    target_option,
    with_target,
)
from autocompress.cli.search_result import print_result, write_study_views
from autocompress.cli.task_options import task_arguments, task_options
from autocompress.cli.track_option import track_option

# The task and its arguments are kept apart; the rest belongs to one session.
NOT_KEPT = (
    *("task", "data", "task_args", "name", "results", "storage"),
    *("timeout", "track", "quiet", "as_json"),
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
    default="accuracy,size,latency",
    show_default=True,
    help="Axes of the front: accuracy and one or both of size, latency.",
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
@click.option("--json", "as_json", is_flag=True, help="Print the front as JSON.")
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
    from autocompress.search.environment import n_usable_cores
    from autocompress.search.executors.table import Resources
    from autocompress.search.stop_rules import StopRules

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
    options["input_shapes"] = parse_shapes(options["input_shapes"])
    for name in ("threads", "runtime_threads", "runtime_batch"):
        value = options[name]
        if value is not None and not 0 < value < float("inf"):
            raise InputError(f"`--{name.replace('_', '-')}` must be positive, but got {value}.")
    if options["refine"] < 0:
        raise InputError(f"`--refine` must be at least 0, but got {options['refine']}.")
    if options["name"] is not None and run_name(options["name"]) != options["name"]:
        raise InputError(
            "`--run` must hold letters, digits, '-', '_' and '.' only, "
            f"but got {options['name']!r}.",
            "Choose the folder it lies in with --results.",
        )
    options["threads"] = options["threads"] or max(1, n_usable_cores() // resources.jobs)
    kept["threads"] = options["threads"]  # which belongs to the run, however many jobs it has later
    context = click.get_current_context(silent=True)
    source = context.get_parameter_source("storage") if context else None
    limits = limits_of(*(options.pop(f"max_{of}") for of in ("size", "drop", "latency")))
    parts = (part.strip() for part in (options.pop("without") or "").split(","))
    _search(
        kept=kept,
        rules=rules,
        resources=resources,
        limits=limits,
        without=frozenset(filter(None, parts)),
        is_usual_storage=source is click.core.ParameterSource.ENVIRONMENT,
        **options,
    )


def _lasting(options: dict[str, Any]) -> dict[str, Any]:
    """What `resume` needs to repeat the command from another folder, as JSON."""
    kept = {name: value for name, value in options.items() if name not in NOT_KEPT}
    space = Path(kept["space"]).expanduser()
    return {**kept, "space": str(space.absolute()) if space.is_file() else kept["space"]}


def _search(
    *,
    kept: dict[str, Any],
    task: str,
    data: str | None,
    task_args: tuple[str, ...],
    rules: Any,
    resources: Any,
    name: str | None,
    seed: int,
    space: str,
    target: str | None,
    objectives: str,
    limits: Any,
    sampler: str,
    proxy: str,
    without: frozenset[str],
    results: Path,
    storage: str | None,
    is_usual_storage: bool,
    executor: str,
    refine: int,
    track: tuple[str, ...],
    quiet: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    from autocompress.cli.progress import SearchProgress
    from autocompress.cli.refine import refine_best
    from autocompress.cli.report_refresh import refreshing
    from autocompress.errors import NoPointError
    from autocompress.evaluate.sensitivity import measure_options
    from autocompress.evaluate.settings import EvaluationSettings
    from autocompress.objective import parse_objectives
    from autocompress.search.driver import check_parts, run_search
    from autocompress.search.executors.table import make_executor
    from autocompress.search.executors.worker import WorkerSpec
    from autocompress.search.listener import both
    from autocompress.search.options import option_cache
    from autocompress.search.sampler import check_sampler
    from autocompress.search.session import absolute_spec, open_session
    from autocompress.search.stores.located import store_for
    from autocompress.search.stores.server import check_server, parse_storage
    from autocompress.search.study import Study
    from autocompress.search.tracking.table import make_trackers
    from autocompress.search.tracking.tracking import Tracking
    from autocompress.space.targets import load_target
    from autocompress.tasks.factory import load_task
    from autocompress.tasks.trust import trust_task
    from autocompress.train.presets import parse_proxy

    parse_objectives(objectives)
    check_sampler(sampler)
    check_parts(without)
    tuning = parse_proxy(proxy)
    server = None if storage is None else parse_storage(storage)
    if server is not None and not is_usual_storage:
        check_server(server)
    make_trackers(track, results)  # are they there?
    arguments = task_arguments(data, task_args)
    progress = SearchProgress(rules, quiet=quiet)
    progress.note(f"Loading task {task}")
    loaded = load_task(task, arguments)
    task = absolute_spec(task)  # a worker may run in another folder
    trust_task(task, arguments)
    folder = results / (name or run_name(loaded.name))
    settings["integer"] = settled_integer(settings["integer"], folder, objectives)
    wanted = EvaluationSettings(**settings, **tuning.settings(loaded))
    session = open_session(loaded, space, wanted, load_target(target) if target else None)
    if session.warning:
        progress.warn(session.warning)
    evaluator = session.evaluator
    identity = session.identity(run_seed=seed, sampler=sampler)
    worker = WorkerSpec(
        task=task, arguments=arguments, settings=evaluator.settings, model=identity["model"]
    )
    workers = make_executor(executor, evaluator, worker, resources)
    with Study(
        folder,
        session.built.space,
        objectives,
        {**identity, "without": sorted(without)},
        {**session.info(task, arguments), "options": kept},
        limits=limits,
        fidelity=tuning.fidelity,
        store=store_for(folder, server, is_usual=is_usual_storage),
    ) as study:
        progress.begin(study.record())
        try:
            tracking = Tracking(make_trackers(track, folder), progress.warn)
            tracking.begin(study.record())
            with progress, tracking:
                run = run_search(
                    study,
                    workers,
                    sampler=sampler,
                    run_seed=seed,
                    without=without,
                    measure_table=lambda probe: measure_options(
                        study.space,
                        probe,
                        option_cache(session, has_latency=study.has_latency),
                        on_progress=progress.tell_option,
                    ),
                    n_shortlisted=session.n_shortlisted,
                    listener=refreshing(both(progress.listener, tracking.listener)),
                    **dataclasses.asdict(rules),
                )
        except KeyboardInterrupt:
            progress.note(f"Stopped. Nothing is lost: the same command continues {folder}.")
            raise
        finally:
            workers.close()
            write_study_views(study)
    if refine:
        try:
            run = refine_best(run, refine, quiet=quiet)
        except NoPointError:  # the search's result stands
            print_result(run, as_json=as_json)
            raise
    print_result(run, as_json=as_json)
