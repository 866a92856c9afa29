"""Models that are called by name, return several tensors or change their inputs, as plain ones.

Everything behind a task calls `model(*tensors)` and gets one tensor. Hooks, PyTorch's own means,
stand between: the modules and their names stay the user's, and both exporters see through them.
"""

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from autocompress.errors import InputError, unknown_name
from autocompress.tasks.base import Inputs, Output


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _ByName:
    """Turns positional inputs into named ones; a forward pre-hook."""

    names: tuple[str, ...]

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (), {**dict(zip(self.names, args, strict=True)), **kwargs}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """Takes the judged part of what the model returns; a forward hook."""

    output: Output

    def __call__(self, module: nn.Module, args: tuple[Any, ...], result: Any) -> Tensor:
        return part_of(result, self.output)


def _copied(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Gives a model inputs that it may write into; a forward pre-hook."""
    return tuple(tensor.clone() for tensor in args)


def adapt_call(model: nn.Module, names: tuple[str, ...] | None, output: Output | None) -> nn.Module:
    """Let a model be called as `model(*tensors)` and return one tensor.

    Args:
        model: Not modified.
        names: Names of its inputs, in order; None if it takes them by position.
        output: See `Task.output`; None if it returns one tensor.

    Returns:
        The model itself if there is nothing to do, else a copy with hooks.
    """
    if names is None and output is None:
        return model
    adapted = copy.deepcopy(model)
    if names is not None:
        adapted.register_forward_pre_hook(_ByName(names=names), with_kwargs=True)
    if output is not None:
        adapted.register_forward_hook(_Part(output=output))
    return adapted


def spare_inputs(model: nn.Module, inputs: Inputs) -> nn.Module:
    """Let a model that writes into its inputs write into copies of them.

    A batch is given to several models, and to one several times: none may find it changed.

    Args:
        model: Modules keep their modes; nothing else changes.
        inputs: A batch that it runs on; not modified.

    Returns:
        The model itself if it leaves its inputs alone, else a copy with a hook.
    """
    given = tuple(tensor.clone() for tensor in inputs)
    versions = [tensor._version for tensor in given]
    modes = {module: module.training for module in model.modules()}
    model.eval()
    with torch.no_grad():
        model(*given)
    for module, is_training in modes.items():
        module.training = is_training
    if [tensor._version for tensor in given] == versions:
        return model
    spared = copy.deepcopy(model)
    spared.register_forward_pre_hook(_copied, prepend=True)
    return spared


def part_of(result: Any, output: Output) -> Tensor:
    """The part of a model's result that is judged.

    Raises:
        InputError: If there is no such part, or it is no tensor.
    """
    if callable(output):
        part = output(result)
    elif isinstance(output, int):
        parts = tuple(result.values()) if isinstance(result, Mapping) else result
        if not isinstance(parts, tuple | list) or not -len(parts) <= output < len(parts):
            raise InputError(
                f"`Task.output` is {output}, but the model returned {describe_result(result)}."
            )
        part = parts[output]
    elif isinstance(result, Mapping):
        if output not in result:
            raise unknown_name("Task.output", output, [str(key) for key in result])
        part = result[output]
    elif hasattr(result, output):
        part = getattr(result, output)
    else:
        raise InputError(
            f"`Task.output` is {output!r}, but the model returned {describe_result(result)}."
        )
    if not isinstance(part, Tensor):
        raise InputError(
            f"`Task.output` must lead to one tensor, but leads to {describe_result(part)}."
        )
    return part


def describe_result(result: Any) -> str:
    """What a model returned, for a message: its type, and the names or shapes of its parts."""
    if isinstance(result, Tensor):
        return f"a tensor of shape {tuple(result.shape)}"
    if isinstance(result, Mapping):
        return f"{type(result).__name__} with {', '.join(map(repr, result))}"
    if isinstance(result, tuple | list):
        return f"{type(result).__name__} of {len(result)}"
    return type(result).__name__
