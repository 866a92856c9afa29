"""Tasks that exist only in this process: made in a notebook or a script, found by a name."""

import dataclasses
from typing import Final

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from autocompress.errors import InputError
from autocompress.tasks.base import Task
from autocompress.tasks.fingerprint import model_fingerprint
from autocompress.tasks.prepare import prepare_task
from autocompress.tasks.user_code import naming_user_code

_PREFIX: Final = "memory:"
_SEED: Final = 0
_tasks: dict[str, Task] = {}


def is_in_memory(spec: str) -> bool:
    """Whether a spec names a task that exists, or existed, in one process only."""
    return spec.startswith(_PREFIX)


def keep_in_memory(task: Task, spec: str | None = None) -> str:
    """Make a task known to `load_task` in this process.

    Args:
        task: Kept until the process ends, or another one takes its place.
        spec: What an earlier process called it; None for a name made of its own and its model's.

    Returns:
        Its spec.

    Raises:
        InputError: If its model is none, or has layers that wait for a first batch and cannot run.
    """
    _materialize_(task)
    if spec is None:
        spec = f"{_PREFIX}{task.name}@{model_fingerprint(task.model)[:8]}"
    _tasks[spec] = task
    return spec


def _materialize_(task: Task) -> None:
    """Let layers that take their shape from a first batch see one, in place; always the same way.

    Until then they have no weights, and a model is known by its weights.
    """
    if isinstance(task.model, nn.Module) and not _waiting(task.model):
        return
    with torch.random.fork_rng(devices=[]), naming_user_code():
        torch.manual_seed(_SEED)
        prepare_task(dataclasses.replace(task, frozen=()))  # which would freeze a copy
    waiting = _waiting(task.model)
    if waiting:
        raise InputError(
            f"`Task.model` must have all its weights, but {waiting[0]!r} waits for a first batch.",
            "Run the model once before the Task is made.",
        )


def _waiting(model: nn.Module) -> list[str]:
    """Names of parameters and buffers that have no shape yet."""
    tensors = (*model.named_parameters(), *model.named_buffers())
    return [name for name, tensor in tensors if is_lazy(tensor)]


def task_in_memory(spec: str) -> Task:
    """The task of a spec.

    Raises:
        InputError: If it was made in another process.
    """
    if spec not in _tasks:
        raise InputError(
            f"The task {spec.removeprefix(_PREFIX)!r} existed only in the memory of the process "
            "that searched it.",
            "In Python: autocompress.open_run(FOLDER, task=task), or search the same task again. "
            "A task in a file can be opened from anywhere.",
        )
    return _tasks[spec]
