"""Executors by name."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Final

from autocompress.errors import InputError, unknown_name
from autocompress.evaluate.evaluator import Evaluator
from autocompress.executors.inline import InlineExecutor
from autocompress.executors.job import Executor
from autocompress.executors.local import LocalExecutor
from autocompress.executors.ray_cluster import RayExecutor
from autocompress.executors.worker import WorkerSpec


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What trials may take.

    Attributes:
        jobs: Trials at once, >= 1.
        timeout_s: Seconds for one, > 0.
        memory_bytes: Memory for one, > 0; None for no limit.
        ray_address: The cluster they run on, `host:port`; None for this machine.
    """

    jobs: int = 1
    timeout_s: float = 7200.0
    memory_bytes: int | None = None
    ray_address: str | None = None


def _inline(evaluator: Evaluator, spec: WorkerSpec, resources: Resources) -> Executor:
    """What cannot be limited is not promised."""
    if resources.jobs > 1 or resources.memory_bytes is not None:
        raise InputError(
            "The executor 'inline' works on one trial at a time, without a limit of memory.",
            "Leave out `jobs` and `trial_memory`, or `executor`.",
        )
    return InlineExecutor(evaluator)


def _local(evaluator: Evaluator, spec: WorkerSpec, resources: Resources) -> Executor:
    return LocalExecutor(
        spec,
        resources.timeout_s,
        n_workers=resources.jobs,
        memory_bytes=resources.memory_bytes,
    )


def _ray(evaluator: Evaluator, spec: WorkerSpec, resources: Resources) -> Executor:
    return RayExecutor(
        spec,
        address=resources.ray_address,
        n_slots=resources.jobs,
        timeout_s=resources.timeout_s,
        memory_bytes=resources.memory_bytes,
    )


EXECUTORS: Final[Mapping[str, Callable[[Evaluator, WorkerSpec, Resources], Executor]]] = {
    "inline": _inline,
    "local": _local,
    "ray": _ray,
}


def make_executor(
    name: str, evaluator: Evaluator, spec: WorkerSpec, resources: Resources
) -> Executor:
    """The executor of a name.

    Args:
        name: Key of `EXECUTORS`.
        evaluator: Evaluates plans in this process.
        spec: How another process makes its own.
        resources: What trials may take.

    Raises:
        InputError: If there is none of that name, or it cannot grant the resources.
    """
    if name not in EXECUTORS:
        raise unknown_name("executor", name, EXECUTORS)
    if resources.ray_address is not None and name != "ray":
        raise InputError("`ray_address` goes with the executor 'ray'.", "Add `executor=ray`.")
    return EXECUTORS[name](evaluator, spec, resources)
