"""Options that say which task a command works on."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from autocompress.errors import InputError

_SECRET: Final = re.compile("token|secret|passw|credential|api_?key", re.IGNORECASE)


def task_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add TASK, `--data` and `--task-arg` to a command."""
    for decorate in (click.argument("task", default="digits"), argument_options):
        command = decorate(command)
    return command


def argument_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--data` and `--task-arg` to a command."""
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
    ):
        command = decorate(command)
    return command


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
