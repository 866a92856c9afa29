"""Tasks that exist only in this process: made in a notebook or a script, found by a name."""

from typing import Final

from autocompress.analysis.fingerprint import model_fingerprint
from autocompress.errors import InputError
from autocompress.tasks.base import Task

_PREFIX: Final = "memory:"
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
    """
    if spec is None:
        spec = f"{_PREFIX}{task.name}@{model_fingerprint(task.model)[:8]}"
    _tasks[spec] = task
    return spec


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
