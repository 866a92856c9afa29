"""What a caller hands over as a task, as a spec that the search understands."""

import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from autocompress.errors import InputError
from autocompress.tasks.base import Task
from autocompress.tasks.factory import make_task
from autocompress.tasks.in_memory import is_in_memory, keep_in_memory
from autocompress.tasks.task_file import FILE_MODULE

TaskLike: TypeAlias = str | Path | Task | Callable[..., Task]


def spec_of(task: TaskLike, arguments: Mapping[str, Any], *, jobs: int) -> str:
    """The spec of a task; one that only this process has is kept in its memory.

    Args:
        task: A spec, a file, a Task, or a function that returns one.
        arguments: Of the function.
        jobs: Trials at once.

    Raises:
        InputError: If it is none of these, or `jobs` needs what other processes can load.
    """
    _refuse_recursion()
    if isinstance(task, str | Path):
        return str(task)
    if isinstance(task, Task):
        if arguments:
            raise InputError("`arguments` are those of a task's function, but a Task was given.")
        return _in_memory(task, jobs, "a Task object lives in this process only")
    if not callable(task):
        raise InputError(
            f"`task` must be a spec, a Task or a function that returns one, but got "
            f"{type(task).__name__}.",
            'For example: autocompress.search("my_task.py", budget=50).',
        )
    spec = _importable_spec(task, is_main_fine=jobs > 1)
    if spec is not None:
        return spec
    why = f"other processes cannot import {getattr(task, '__qualname__', 'the function')!r}"
    return _in_memory(make_task(task, arguments), jobs, why)


def _in_memory(task: Task, jobs: int, why: str) -> str:
    if jobs > 1:
        raise InputError(
            f"`jobs` = {jobs} needs worker processes that load the task themselves, but {why}.",
            "Put a function that returns the Task into a file, and give 'my_task.py:function'; or "
            "leave out `jobs`.",
        )
    spec = keep_in_memory(task)
    assert is_in_memory(spec)
    return spec


def _importable_spec(function: Callable[..., Task], *, is_main_fine: bool) -> str | None:
    """`file.py:function` or `package.module:function`, or None if nobody else could import it.

    A function of the running script is found in its file only if it must be: to load it there is
    to run the script's other lines once more.
    """
    name = getattr(function, "__name__", "")
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    if not inspect.isfunction(function) or getattr(module, name, None) is not function:
        return None  # a lambda, a method, a partial, a function inside another one
    if module is None or (module.__name__ == "__main__" and not is_main_fine):
        return None
    if "." in module.__name__ and importlib.util.find_spec(module.__name__) is not None:
        return f"{module.__name__}:{name}"
    file = getattr(module, "__file__", None)
    if file is None or not file.endswith(".py") or not Path(file).is_file():
        return None
    return f"{Path(file).absolute()}:{name}"


def _refuse_recursion() -> None:
    """A task file that searches itself when it is imported would never end."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_globals.get("__name__", "").startswith(FILE_MODULE):
            raise InputError(
                f"{frame.f_code.co_filename}, line {frame.f_lineno}, searches while it is loaded "
                "as a task file.",
                'Put the call under `if __name__ == "__main__":`.',
            )
