"""Options of a search: checked before anything is loaded, and settled where they were left open."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autocompress.environment import n_usable_cores
from autocompress.errors import InputError
from autocompress.objective import LATENCY, default_objectives, parse_objectives
from autocompress.runs.tracking.registry import make_trackers
from autocompress.runtime.registry import known_runtime
from autocompress.samplers.propose import check_sampler
from autocompress.search_options import SearchOptions
from autocompress.space.rules import SpaceRules, is_shipped, load_rules
from autocompress.space.targets import load_target, restrict
from autocompress.storages.open_storage import is_run
from autocompress.storages.server import check_server, parse_storage
from autocompress.study.optimize import check_parts
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
    if (
        options.name is not None
        and run_name(options.name) != options.name
        and not (Path(options.name).name == options.name and is_run(options.results / options.name))
    ):  # one that exists may have been renamed
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


def rules_of(options: SearchOptions, folder: Path | None = None) -> SpaceRules:
    """The search space's rules, cut down to what the target supports.

    How wide integer weights may be is what the options say, else the space, the target, and last
    the runtime. A run of version 0.1 keeps 8, with which it began.

    Args:
        options: Settled.
        folder: The run folder, which need not exist; None without a run.

    Raises:
        InputError: If the space or the target is not valid.
    """
    rules = load_rules(options.space)
    if options.target is not None:
        rules = restrict(rules, load_target(options.target))
    assert options.runtime is not None, "settled before"
    widest = (
        options.integer_weight_bits
        or (8 if is_of_version_0_1(folder) else None)  # whatever its target says today
        or rules.integer_weight_bits
        or known_runtime(options.runtime).integer_weight_bits
    )
    return rules.model_copy(update={"integer_weight_bits": widest})


def keeps_space(options: SearchOptions, folder: Path) -> bool:
    """Whether a run goes on with the search space it began with.

    A shipped space is meant by its name, and what it holds differs between versions; a file of the
    user's must be the same.

    Args:
        options: Settled.
        folder: The run folder, which need not exist.
    """
    kept = _kept(folder, "options")
    asked = options.to_json()
    decisive = ("space", "target", "integer_weight_bits")
    same = all(kept.get(name) == asked.get(name) for name in decisive)
    return bool(kept) and same and is_shipped(options.space)


def settle_integer(options: SearchOptions, folder: Path) -> str:
    """What `integer="auto"` means, as far as it is known before anything is measured.

    A run keeps what it began with; where latency is no objective, trained grids do.

    Args:
        options: Settled.
        folder: The run folder, which need not exist.
    """
    if options.integer != "auto":
        return options.integer
    kept = _kept(folder, "settings").get("integer")
    if kept in ("static", "dynamic"):
        return str(kept)
    return "auto" if LATENCY.name in str(options.objectives) else "static"


def is_of_version_0_1(folder: Path | None) -> bool:
    """Whether a run was begun by version 0.1; False where there is none yet."""
    kept = {} if folder is None else _kept(folder, "options")
    return bool(kept) and "integer_weight_bits" not in kept


def _kept(folder: Path, part: str) -> Mapping[str, Any]:
    """A part of what a run says about itself; empty if there is none."""
    try:
        kept = json.loads((folder / "run.json").read_bytes())[part]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return kept if isinstance(kept, dict) else {}
