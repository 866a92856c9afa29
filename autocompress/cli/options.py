"""Options that several commands share: task, limits, runtime, target, tracking, JSON."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from autocompress.errors import InputError
from autocompress.option_readers import Typed
from autocompress.search_options import GROUPS, default_of, names_of, option_of
from autocompress.terminal.printing import echo

Command = TypeVar("Command", bound=Callable[..., Any])
_STDOUT: Final = "autocompress.stdout"
MEASURING: Final = (
    *(
        "runtime",
        "runtime_threads",
        "runtime_batch",
        "integer",
        "integer_weight_bits",
        "input_shapes",
    ),
    *("threads", "device"),
)
"""Options of a search that say how a model is measured; `check` and `analyze` take them, too."""


def json_option(says: str) -> Callable[[Command], Command]:
    """Add `--json`, as `as_json`.

    Args:
        says: Its help.
    """
    return click.option("--json", "as_json", is_flag=True, help=says, callback=_keep_stdout)


def print_json(document: object, *, allow_nan: bool = True) -> None:
    """Print the document of a command that has `json_option`."""
    stdout = click.get_current_context().meta.get(_STDOUT)
    echo(json.dumps(document, indent=2, allow_nan=allow_nan), file=stdout)


def _keep_stdout(context: click.Context, parameter: click.Parameter, is_asked: bool) -> bool:
    if is_asked:
        context.meta[_STDOUT] = sys.stdout
        context.with_resource(contextlib.redirect_stdout(sys.stderr))
    return is_asked


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
            echo(
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


def search_options(*names: str, default: str = "") -> Callable[[Command], Command]:
    """Add flags for fields of `SearchOptions`; what was not typed is None, or empty.

    Args:
        names: Which fields; all of them if none is named.
        default: What `--help` says of all their defaults, instead of each one's own.
    """

    def decorate(command: Command) -> Command:
        for name in reversed(names or names_of()):
            command = _flag(name, default)(command)
        return command

    return decorate


def typed(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were typed, of those that `search_options` added."""
    return {name: value for name, value in given.items() if value not in (None, ())}


def flag_of(name: str) -> str:
    """An option's name on the command line."""
    return option_of(name).flag or f"--{name.replace('_', '-')}"


class GroupedCommand(click.Command):
    """A command whose `--help` shows the options of a search in groups."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section for each group, then one for what belongs to none."""
        known = names_of()
        sections: dict[str, list[tuple[str, str]]] = {title: [] for title in (*GROUPS, "Options")}
        for parameter in self.get_params(ctx):
            name, record = str(parameter.name), parameter.get_help_record(ctx)
            if record is not None:
                sections[option_of(name).group if name in known else "Options"].append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


class _TypedText(click.ParamType):  # type: ignore[type-arg]
    """Text whose meaning the option's reader knows."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Mark it as typed."""
        return Typed(value)


def _flag(name: str, default: str) -> Callable[[Command], Command]:
    option, usual = option_of(name), default_of(name)
    shown = default or option.shown_default or ("" if usual in (None, (), frozenset()) else usual)
    return click.option(
        flag_of(name),
        name,
        type=_TypedText(),
        metavar=option.metavar,
        multiple=name in ("input_shapes", "track"),
        envvar=option.environment or None,
        show_envvar=bool(option.environment),
        help=f"{option.help}{f'  [default: {shown}]' if shown != '' else ''}",
    )
