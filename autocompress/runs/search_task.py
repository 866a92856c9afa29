"""A whole search: what the command line and the Python API both run."""

import dataclasses

from autocompress.evaluate.sensitivity import measure_options
from autocompress.evaluate.settings import EvaluationSettings
from autocompress.executors.registry import make_executor
from autocompress.executors.worker import WorkerSpec
from autocompress.run_record import RunRecord
from autocompress.runs.options import SearchRequest, settled_integer
from autocompress.runs.tracking.registry import make_trackers
from autocompress.runs.tracking.tracking import Tracking
from autocompress.runs.views import refreshing, write_study_views
from autocompress.space.targets import load_target
from autocompress.storages.open_storage import store_for
from autocompress.storages.server import parse_storage
from autocompress.study.listener import Watch, both
from autocompress.study.optimize import run_search
from autocompress.study.session import absolute_spec, open_session, option_cache
from autocompress.study.study import Study
from autocompress.tasks.factory import load_task
from autocompress.tasks.in_memory import is_in_memory
from autocompress.tasks.trust import trust_task
from autocompress.train.presets import parse_proxy


def search_task(request: SearchRequest, watch: Watch) -> RunRecord:
    """Load a task and search it until a stop rule ends it; a run that exists goes on.

    However it ends, the run folder's tables and report are those of what has been found.

    Args:
        request: What is asked for.
        watch: Told about everything on the way.

    Returns:
        The run as it is then.

    Raises:
        AutocompressError: If the task cannot be loaded, the run folder belongs to another study or
            driver, or no trial succeeds.
    """
    proxy = parse_proxy(request.proxy)
    if not is_in_memory(request.task):
        watch.note(f"Loading task {request.task}")
    task = load_task(request.task, request.arguments)
    spec = absolute_spec(request.task)  # a worker may run in another folder
    trust_task(spec, request.arguments)
    folder = request.folder(task.name)
    integer = request.settings.get("integer", "static")
    settings = {
        **request.settings,
        "integer": settled_integer(integer, folder, request.objectives),
    }
    target = None if request.target is None else load_target(request.target)
    wanted = EvaluationSettings(**settings, **proxy.settings(task))
    session = open_session(task, request.space, wanted, target)
    if session.warning:
        watch.warn(session.warning)
    identity = session.identity(run_seed=request.seed, sampler=request.sampler, task=request.task)
    worker = WorkerSpec(
        task=spec,
        arguments=request.arguments,
        settings=session.evaluator.settings,
        model=identity["model"],
    )
    executor = make_executor(request.executor, session.evaluator, worker, request.resources)
    server = None if request.storage is None else parse_storage(request.storage)
    with Study(
        folder,
        session.built.space,
        request.objectives,
        {**identity, "without": sorted(request.without)},
        {**session.info(spec, request.arguments), "options": dict(request.options)},
        limits=request.limits,
        fidelity=proxy.fidelity,
        store=store_for(folder, server, is_usual=request.is_usual_storage),
    ) as study:
        watch.begin(study.record())
        try:
            tracking = Tracking(make_trackers(request.track, folder), watch.warn)
            tracking.begin(study.record())
            with watch, tracking:
                return run_search(
                    study,
                    executor,
                    sampler=request.sampler,
                    run_seed=request.seed,
                    without=request.without,
                    measure_table=lambda probe: measure_options(
                        study.space,
                        probe,
                        option_cache(session, has_latency=study.has_latency),
                        on_progress=watch.tell_option,
                    ),
                    n_shortlisted=session.n_shortlisted,
                    listener=refreshing(both(watch.listener, tracking.listener), watch.warn),
                    **dataclasses.asdict(request.rules),
                )
        except KeyboardInterrupt:
            watch.note(f"Stopped. Nothing is lost: the same command continues {folder}.")
            raise
        finally:
            executor.close()
            write_study_views(study, watch.warn)
