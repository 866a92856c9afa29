"""Options of a search: checked before anything is loaded, and settled where they were left open."""

import dataclasses
import json
from pathlib import Path

from autocompress.errors import InputError
from autocompress.objective import LATENCY, default_objectives, parse_objectives
from autocompress.runs.tracking.registry import make_trackers
from autocompress.samplers.propose import check_sampler
from autocompress.search_options import SearchOptions
from autocompress.space.targets import load_target
from autocompress.storages.server import check_server, parse_storage
from autocompress.study.optimize import check_parts
from autocompress.study.session import n_usable_cores
from autocompress.tasks.in_memory import is_in_memory
from autocompress.train.presets import parse_proxy


def settle_options(options: SearchOptions) -> SearchOptions:
    """Check what can be wrong before the task is loaded, and decide what was left open.

    The target decides runtime, objectives and the largest size where they were not given; threads
    are those of all cores, shared by the jobs.

    Raises:
        InputError: If a name is unknown or the server is away.
    """
    target = None if options.target is None else load_target(options.target)
    settled = dataclasses.replace(
        options,
        runtime=options.runtime or (target and target.runtime) or "onnxruntime",
        objectives=options.objectives or (target and target.objectives) or default_objectives(),
        max_size=target.max_size if target and options.max_size is None else options.max_size,
        threads=options.threads or max(1, n_usable_cores() // options.jobs),
        executor=options.executor or ("inline" if is_in_memory(options.task) else "local"),
    )
    _check_names(settled)
    return settled


def _check_names(options: SearchOptions) -> None:
    if options.name is not None and run_name(options.name) != options.name:
        raise InputError(
            f"`name` must hold letters, digits, '-', '_' and '.' only, but got {options.name!r}.",
            "Choose the folder it lies in with `results`.",
        )
    assert options.objectives is not None, "settled before"
    parse_objectives(options.objectives)
    check_sampler(options.sampler)
    check_parts(options.without)
    parse_proxy(options.proxy)
    make_trackers(options.track, options.results)  # are they there?
    if options.storage is not None:
        server = parse_storage(options.storage)
        if not options.is_usual_storage:
            check_server(server)


def run_folder(options: SearchOptions, task_name: str) -> Path:
    """The folder of the run."""
    return options.results / (options.name or run_name(task_name))


def run_name(task_name: str) -> str:
    """A task's name as that of a folder."""
    kept = (c if c.isalnum() or c in "-_." else "-" for c in task_name)
    return "".join(kept).strip(".") or "run"


def settle_integer(options: SearchOptions, folder: Path) -> str:
    """What `integer="auto"` means, as far as it is known before anything is measured.

    A run keeps what it began with; where latency is no objective, trained grids do.

    Args:
        options: Settled.
        folder: The run folder, which need not exist.
    """
    if options.integer != "auto":
        return options.integer
    try:
        kept = json.loads((folder / "run.json").read_bytes())["settings"]["integer"]
    except (OSError, ValueError, KeyError, TypeError):
        kept = None
    if kept in ("static", "dynamic"):
        return str(kept)
    return "auto" if LATENCY.name in str(options.objectives) else "static"
