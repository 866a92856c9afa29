"""The options that say what a latency is: which runtime, on how many threads, how many examples."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


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
