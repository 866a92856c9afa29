"""Find and call a task factory: by name, in a user's file, or in a package."""

import contextlib
import difflib
import importlib
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from torch import nn

from autocompress.entry_points import Registry
from autocompress.errors import AutocompressError, InputError, unknown_name
from autocompress.tasks.arguments import convert_arguments
from autocompress.tasks.base import Task
from autocompress.tasks.in_memory import is_in_memory, task_in_memory
from autocompress.tasks.task_file import import_file, module_name_of, reproducible
from autocompress.tasks.user_code import Place, describe_error, place_of

# Tasks that can be asked for by name. To add one, write its factory and add a line here.
TASKS: dict[str, str] = {
    "digits": "autocompress.tasks.digits:digits",
    "hf": "autocompress.tasks.huggingface.factory:hf",
}
TASK_REGISTRY: Final[Registry[object]] = Registry(
    kind="task", group="autocompress.tasks", built_in=TASKS, is_row=callable
)

_FORMS = "Give a task's name, `file.py:function`, `file.py` or `package.module:function`."


def load_task(spec: str, arguments: Mapping[str, str]) -> Task:
    """Load the task that `spec` names.

    A file is imported under a name of its own, registered in `sys.modules`, and read afresh at each
    call. Its folder is importable while it is loaded and while its factory runs; for a package this
    holds for the current folder.

    A factory that trains its model gives the same weights in every process: random generators are
    seeded and torch runs on one thread while it works (on several, the maths library takes fewer
    when the machine is busy, and sums in another order).

    Args:
        spec: A name in `TASK_REGISTRY`, `file.py:function`, `file.py` (its function `task`) or
            `package.module:function`.
        arguments: Keyword arguments of the factory as text, converted by its annotations.

    Raises:
        InputError: If the factory cannot be found, called with these arguments, or fails; the
            message names the user's file and line. An `AutocompressError` that the factory raises
            on purpose passes through.
    """
    if is_in_memory(spec):
        return task_in_memory(spec)
    task, function_name, source = _call_factory(spec, arguments, "Task")
    if not isinstance(task, Task):
        raise _no_task(task, function_name, source)
    return task


def load_teacher(spec: str) -> nn.Module:
    """Load the model that `spec` names, as `load_task` loads a task.

    Args:
        spec: `file.py:function` or `package.module:function`; the function takes no arguments and
            returns a model, or a Task whose model is meant.

    Raises:
        InputError: If the function cannot be found or fails, or returns something else.
    """
    made, function_name, source = _call_factory(spec, {}, "model")
    model = made.model if isinstance(made, Task) else made
    if not isinstance(model, nn.Module):
        raise InputError(
            f"The teacher's function {function_name!r} of {source} must return a torch.nn.Module "
            f"or a Task, but returned {type(model).__name__}."
        )
    return model


def load_function(spec: str) -> Callable[..., Any]:
    """Find the function that `file.py:function` or `package.module:function` names.

    Raises:
        InputError: If there is none.
    """
    path, module_name, function_name = _parse(spec)
    folder = path.parent if path is not None else Path.cwd()
    with _importable(folder), reproducible():
        module = _import_module(module_name) if path is None else import_file(path)
        return _find_factory(module, function_name, str(path or module_name))


def _call_factory(spec: str, arguments: Mapping[str, str], what: str) -> tuple[object, str, str]:
    """What a factory returns, its name, and where it was found."""
    path, module_name, function_name = _parse(_spelled_out(spec))
    folder = path.parent if path is not None else Path.cwd()
    # what is installed needs nothing from the current folder
    importable = contextlib.nullcontext() if is_named(spec) else _importable(folder)
    with importable, reproducible():
        if is_named(spec):
            TASK_REGISTRY.find(spec)  # says which package it is that cannot be imported
        module = _import_module(module_name) if path is None else import_file(path)
        source = str(path or module.__file__ or module_name)
        factory = _find_factory(module, function_name, source)
        keywords = convert_arguments(factory, arguments, f"{source}:{function_name}")
        made = _made(lambda: factory(**keywords), function_name, what, source)
        return made, function_name, source


def make_task(factory: Callable[..., object], arguments: Mapping[str, object]) -> Task:
    """Call a factory that is at hand, seeded and on one thread as `load_task` does.

    Args:
        factory: Returns a Task.
        arguments: Keyword arguments.

    Raises:
        InputError: If it fails or returns something else.
    """
    name = getattr(factory, "__name__", type(factory).__name__)
    with reproducible():
        task = _made(lambda: factory(**arguments), name, "Task", None)
    if not isinstance(task, Task):
        raise _no_task(task, name, "this process")
    return task


def _made(call: Callable[[], object], name: str, what: str, source: str | None) -> object:
    try:
        return call()
    except AutocompressError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(
            f"The task factory {name!r} must return a {what}, "
            f"but raised {describe_error(error, source)}."
        ) from error


def _no_task(made: object, function_name: str, source: str) -> InputError:
    return InputError(
        f"The task factory {function_name!r} of {source} must return an autocompress.Task, "
        f"but returned {type(made).__name__}.",
        "End it with `return Task(model=..., train=...)`.",
    )


def is_named(spec: str) -> bool:
    """Whether a spec is the name of a task of this package, or of another installed one."""
    is_place = ":" in spec or "/" in spec or "\\" in spec or spec.endswith(".py")
    return not is_place and spec in TASK_REGISTRY.names


def _spelled_out(spec: str) -> str:
    """The `package.module:function` that a name stands for; a spec of another form as it is."""
    if not is_named(spec):
        return spec
    return TASK_REGISTRY.target_of(spec) or TASKS[spec]


def _parse(spec: str) -> tuple[Path | None, str, str]:
    """Split a spec into (file or None, module name, function name)."""
    place, colon, function_name = spec.rpartition(":")
    if not colon or spec.endswith(".py"):
        place, function_name = spec, "task" if spec.endswith(".py") else ""
    is_path = place.endswith(".py") or "/" in place or "\\" in place or Path(place).is_file()
    if is_path:
        path = Path(place).expanduser()
        if not path.exists():
            raise InputError(f"The task file must exist, but {path} does not.", _FORMS)
        if path.suffix != ".py" or not path.is_file():
            raise InputError(f"A task file must be a Python file (.py), but got {path}.", _FORMS)
        return path.resolve(), "", function_name or "task"
    if not place or not all(part.isidentifier() for part in place.split(".")):
        raise InputError(f"The task {spec!r} is neither a name, a file nor a module.", _FORMS)
    if not function_name:
        if "." not in place:
            error = unknown_name("task", spec, TASK_REGISTRY.names)
            raise InputError(error.message, f"{error.hint} Or give `file.py:function`.")
        raise InputError(
            f"The task {spec!r} names a module, but not the function that returns the task.",
            f"Add it: {spec}:FUNCTION.",
        )
    return None, place, function_name


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    entry = str(folder)
    sys.path.insert(0, entry)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the user's code may have removed it itself
            sys.path.remove(entry)


def place_of_factory(spec: str) -> Place | None:
    """Where a factory that has been loaded begins; None if it is not the user's."""
    if is_in_memory(spec):
        return None
    path, module_name, function_name = _parse(_spelled_out(spec))
    module = sys.modules.get(module_name if path is None else module_name_of(path))
    return place_of(getattr(module, function_name, None))


def _import_module(name: str) -> types.ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{name}.".startswith(f"{missing}."):
            raise InputError(
                f"The task's module {name!r} must be importable, but there is no {missing!r}.",
                "Install it, or run from the folder that holds it.",
            ) from error
        raise InputError(
            f"The task's module {name!r} must be importable, but raised {describe_error(error)}."
        ) from error


def _find_factory(module: types.ModuleType, name: str, source: str) -> Callable[..., object]:
    found = getattr(module, name, None)
    if callable(found):
        return found
    if found is not None:
        raise InputError(
            f"{name!r} of {source} must be a function that returns a Task, "
            f"but is a {type(found).__name__}."
        )
    functions = [
        key
        for key, value in vars(module).items()
        if isinstance(value, types.FunctionType)
        and value.__module__ == module.__name__
        and not key.startswith("_")
    ]
    close = difflib.get_close_matches(name, functions, n=1)
    guess = f"Did you mean {close[0]!r}? " if close else ""
    listed = ", ".join(functions) or "no functions"
    raise InputError(
        f"{source} must define the function {name!r}, but does not.", f"{guess}It has: {listed}."
    )
