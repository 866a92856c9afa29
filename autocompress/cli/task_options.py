"""Options that say which task a command works on."""

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from autocompress.errors import InputError

_DEFAULT: Final = "digits"
_SECRET: Final = re.compile("token|secret|passw|credential|api_?key", re.IGNORECASE)


def task_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add TASK and `--task`, which are one, `--data`, `--task-arg` and its shorthands."""

    @functools.wraps(command)
    def with_task(task: str | None, task_option: str | None, **options: Any) -> Any:
        if task is not None and task_option is not None:
            raise InputError(
                f"The task must be given once, but came as {task!r} and as --task {task_option}."
            )
        return command(task=task or task_option or _DEFAULT, **options)

    decorated: Callable[..., Any] = with_task
    for decorate in (
        click.argument("task", required=False),
        click.option("--task", "task_option", metavar="TASK", help="TASK, as an option."),
        argument_options,
    ):
        decorated = decorate(decorated)
    return decorated


def argument_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--data` and `--task-arg` to a command, and `--model` and `--dataset`, its shorthands."""

    @functools.wraps(command)
    def with_shorthands(
        task_args: tuple[str, ...], model: str | None, dataset: str | None, **options: Any
    ) -> Any:
        named = {"model": model, "dataset": dataset}
        short = (f"{k}={_path_or_name(v)}" for k, v in named.items() if v is not None)
        return command(task_args=(*short, *task_args), **options)

    decorated: Callable[..., Any] = with_shorthands
    for decorate in (
        click.option("--data", help="Data folder, passed to the task as `data`."),
        click.option(
            "--task-arg",
            "task_args",
            multiple=True,
            metavar="KEY=VALUE",
            help="Argument of the task's factory; may be repeated. VALUE env:NAME is what the "
            "environment variable NAME holds.",
        ),
        click.option(
            "--dataset",
            metavar="PATH_OR_NAME",
            help="Data of the task `hf`: short for --task-arg dataset=...",
        ),
        click.option(
            "--model",
            metavar="PATH_OR_NAME",
            help="Model of the task `hf`: short for --task-arg model=...",
        ),
    ):
        decorated = decorate(decorated)
    return decorated


def task_arguments(data: str | None, task_args: tuple[str, ...]) -> dict[str, str]:
    """Arguments of the task's factory.

    Raises:
        InputError: If a `--task-arg` has no `=` or a name is given twice.
    """
    arguments = {} if data is None else {"data": str(Path(data).expanduser().absolute())}
    for item in task_args:
        key, separator, value = item.partition("=")
        if not separator or not key.isidentifier():
            raise InputError(f"`--task-arg` must look like key=value, but got {item!r}.")
        if key in arguments:
            raise InputError(f"The task argument {key!r} must be given once, but came twice.")
        arguments[key] = _lasting(value)
        if _SECRET.search(key) and not value.startswith("env:"):
            click.echo(
                f"Warning: a run keeps its task arguments, {key!r} too. {key}=env:NAME keeps the "
                "name of an environment variable only.",
                err=True,
            )
    return arguments


def _lasting(value: str) -> str:
    """A value that names a file or folder, as a path that means the same from anywhere."""
    path = Path(value)
    looks_like_path = len(path.parts) > 1 or bool(path.suffix)
    return str(path.absolute()) if looks_like_path and path.exists() else value


def _path_or_name(value: str) -> str:
    """A file or folder that exists, as an absolute path; else a name on the hub."""
    path = Path(value).expanduser()
    return str(path.absolute()) if path.exists() else value
