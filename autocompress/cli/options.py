"""Options that several commands share: task, limits, runtime, target, tracking, JSON."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from autocompress.errors import InputError
from autocompress.objective import OBJECTIVES

if TYPE_CHECKING:
    pass

Command = TypeVar("Command", bound=Callable[..., Any])
_STDOUT: Final = "autocompress.stdout"


def json_option(says: str) -> Callable[[Command], Command]:
    """Add `--json`, as `as_json`.

    Args:
        says: Its help.
    """
    return click.option("--json", "as_json", is_flag=True, help=says, callback=_keep_stdout)


def print_json(document: object, *, allow_nan: bool = True) -> None:
    """Print the document of a command that has `json_option`."""
    stdout = click.get_current_context().meta.get(_STDOUT)
    click.echo(json.dumps(document, indent=2, allow_nan=allow_nan), file=stdout)


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


def track_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--track` to a command."""
    return click.option(
        "--track",
        multiple=True,
        metavar="NAME[:WHERE]",
        help="Write each trial for another tool, too; may be repeated. mlflow[:URI] into results/"
        "mlruns (or MLFLOW_TRACKING_URI), tensorboard[:FOLDER] into the run folder, unless told "
        "otherwise. A tool that fails does not end the search.",
    )(command)


def limit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--max-drop`, and `--max-size` for a cost `size`, to a command."""
    for row in reversed(OBJECTIVES.values()):
        name = f"--{row.option.replace('_', '-')}"
        says = f"Limit: {row.limit_help}"
        command = click.option(name, metavar=row.quantity.typed_as, help=says)(command)
    return command


def runtime_options(command: Command) -> Command:
    """Add `--runtime`, its threads and batch, `--integer` and `--input-shape`."""
    for option in (
        click.option(
            "--input-shape",
            "input_shapes",
            multiple=True,
            metavar="N,N,...",
            help="Shape of a timed example, without the batch; once for each input. Default: the "
            "task's.",
        ),
        click.option(
            "--runtime-batch",
            default=1,
            show_default=True,
            help="Examples of an inference that is timed.",
        ),
        click.option(
            "--integer",
            type=click.Choice(["auto", "static", "dynamic"]),
            default="auto",
            show_default=True,
            help="Grids of 8-bit inputs: the trained ones (static), or one for each inference "
            "(dynamic: products and LSTMs in ONNX Runtime). auto: what is faster.",
        ),
        click.option(
            "--runtime-threads", default=1, show_default=True, help="Threads of the runtime."
        ),
        click.option(
            "--runtime",
            default="onnxruntime",
            show_default=True,
            help="Who runs what is timed: onnxruntime, openvino, openvino_bf16, executorch, "
            "torch_export.",
        ),
    ):
        command = option(command)
    return command


def parse_shapes(texts: Sequence[str]) -> tuple[tuple[int, ...], ...] | None:
    """Shapes of one example for each input; None if none is given.

    Raises:
        InputError: If one is not positive numbers with commas between them.
    """
    return tuple(map(parse_shape, texts)) or None


def parse_shape(text: str) -> tuple[int, ...]:
    """A shape such as `3,32,32`.

    Raises:
        InputError: If it is anything else.
    """
    from autocompress.errors import InputError

    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise InputError(
            f"A shape must be positive numbers such as 3,32,32, but got {text!r}.",
        )
    return tuple(map(int, parts))


def target_option(command: Command) -> Command:
    """Add `--target`."""
    return click.option(
        "--target",
        metavar="TARGET",
        help="What the device supports: a YAML file, or x86-onnxruntime, x86-openvino-amx, "
        "arm-xnnpack, storage-only. Plans outside it are not proposed.",
    )(command)


def with_target(options: dict[str, Any]) -> dict[str, Any]:
    """Options of `search`, where the target decides those that were not typed.

    Raises:
        InputError: If there is no such target.
    """
    from autocompress.space.targets import load_target

    context = click.get_current_context(silent=True)
    if options["target"] is None:
        return options
    target = load_target(options["target"])
    if context is None:  # continued: the run keeps what was decided
        return options
    defaults = {
        name: value
        for name, value in (
            ("runtime", target.runtime),
            ("objectives", target.objectives),
            ("max_size", None if target.max_size is None else str(target.max_size)),
        )
        if value is not None
        and context.get_parameter_source(name) is click.core.ParameterSource.DEFAULT
    }
    path = Path(options["target"]).expanduser()
    lasting = str(path.absolute()) if path.is_file() else options["target"]
    return {**options, **defaults, "target": lasting}
