"""A whole search: what the command line and the Python API both run."""

from typing import Final

from autocompress.errors import InputError
from autocompress.evaluate.check.registry import check_quickly
from autocompress.evaluate.sensitivity import measure_levels
from autocompress.evaluate.settings import EvaluationSettings
from autocompress.executors.registry import Resources, make_executor
from autocompress.executors.worker import WorkerSpec
from autocompress.run_record import RunRecord
from autocompress.runs.options import (
    is_of_version_0_1,
    keeps_space,
    rules_of,
    run_folder,
    settle_integer,
    settle_options,
)
from autocompress.runs.tracking.registry import make_trackers
from autocompress.runs.tracking.tracking import Tracking
from autocompress.runs.views import refreshing, write_study_views
from autocompress.search_options import SearchOptions
from autocompress.storages.open_storage import is_run, store_for
from autocompress.storages.server import parse_storage
from autocompress.study.listener import Watch, both
from autocompress.study.optimize import run_search
from autocompress.study.session import Session, absolute_spec, open_session, sensitivity_cache
from autocompress.study.stop_rules import StopRules
from autocompress.study.strategy import SearchMethod
from autocompress.study.study import Study
from autocompress.tasks.base import Task
from autocompress.tasks.factory import load_task
from autocompress.tasks.in_memory import is_in_memory
from autocompress.tasks.trust import trust_task
from autocompress.train.presets import parse_proxy

_SEARCH_SHARE: Final = 0.3  # of `time`; the rest trains the points that matter


def search_seconds(options: SearchOptions, run: RunRecord) -> float | None:
    """Seconds after which this session's search ends; None for no such rule.

    Args:
        options: What is asked for.
        run: The run so far: of `time` earlier sessions have used some.
    """
    share = None if options.time is None else max(_SEARCH_SHARE * options.time - run.seconds, 0.0)
    return min((s for s in (options.timeout, share) if s is not None), default=None)


def _check(
    task: Task, session: Session, options: SearchOptions, watch: Watch, *, is_tuned: bool
) -> None:
    """Before a run begins: what would make its figures meaningless is refused, the rest warned of.

    Raises:
        InputError: If the metric is lower for better outputs: the worst model would win.
    """
    settings, rules = session.evaluator.settings, rules_of(options)
    for checked in check_quickly(
        task, session.prepared, options.task, options.arguments, settings=settings, rules=rules
    ):
        message, fix = checked.finding.message, checked.finding.fix
        if checked.name == "direction":
            raise InputError(message, fix)
        if is_tuned or checked.name != "gradients":
            watch.warn(f"{message} {fix}")


def search_task(options: SearchOptions, watch: Watch) -> RunRecord:
    """Load a task and search it until a stop rule ends it; a run that exists goes on.

    However it ends, the run folder's tables and report are those of what has been found.

    Args:
        options: What is asked for.
        watch: Told about everything on the way.

    Returns:
        The run as it is then.

    Raises:
        AutocompressError: If an option cannot be used, the task cannot be loaded, the run folder
            belongs to another study or driver, or no trial succeeds.
    """
    options = settle_options(options)
    proxy = parse_proxy(options.proxy)
    if not is_in_memory(options.task):
        watch.note(f"Loading task {options.task}")
    task = load_task(options.task, options.arguments)
    spec = absolute_spec(options.task)  # a worker may run in another folder
    trust_task(spec, options.arguments)
    folder = run_folder(options, task.name)
    settings = {**options.settings(), "integer": settle_integer(options, folder)}
    wanted = EvaluationSettings(**settings, **proxy.settings(task), seed=options.seed)
    session = open_session(task, rules_of(options, folder), wanted)
    if session.warning:
        watch.warn(session.warning)
    if not is_run(folder):
        _check(task, session, options, watch, is_tuned=proxy.fidelity > 0)
    if is_of_version_0_1(folder):
        watch.warn(
            "Version 0.1 began this run; its further trials are tuned as this version does: "
            "structures once, rounded weights only where that helps."
        )
    identity = session.identity(run_seed=options.seed, sampler=options.sampler, task=options.task)
    worker = WorkerSpec(
        task=spec,
        arguments=options.arguments,
        settings=session.evaluator.settings,
        model=identity["model"],
    )
    resources = Resources(
        jobs=options.jobs,
        timeout_s=options.trial_timeout,
        memory_bytes=options.trial_memory,
        ray_address=options.ray_address,
    )
    executor = make_executor(str(options.executor), session.evaluator, worker, resources)
    server = None if options.storage is None else parse_storage(options.storage)
    with Study(
        folder,
        session.built.space,
        str(options.objectives),
        {**identity, **options.identity()},
        {**session.info(spec, options.arguments), "options": options.to_json()},
        limits=options.limits,
        fidelity=proxy.fidelity,
        store=store_for(folder, server, is_usual=options.is_usual_storage),
        keeps_space=keeps_space(options, folder),
    ) as study:
        watch.begin(study.record())
        try:
            tracking = Tracking(make_trackers(options.track, folder), watch.warn)
            tracking.begin(study.record())
            with watch, tracking:
                method = SearchMethod(
                    sampler=options.sampler,
                    run_seed=options.seed,
                    without=options.without,
                    measure_table=lambda probe: measure_levels(
                        study.space,
                        probe,
                        sensitivity_cache(session, has_latency=study.has_latency),
                        on_progress=watch.tell_level,
                    ),
                    n_shortlisted=session.n_shortlisted,
                )
                rules = StopRules(
                    budget=options.budget,
                    until_stalled=options.until_stalled,
                    timeout_s=search_seconds(options, study.record()),
                )
                listener = refreshing(both(watch.listener, tracking.listener), watch.warn)
                return run_search(study, executor, method, rules, listener=listener)
        except KeyboardInterrupt:
            watch.note(f"Stopped. Nothing is lost: the same command continues {folder}.")
            raise
        finally:
            executor.close()
            write_study_views(study, watch.warn)
