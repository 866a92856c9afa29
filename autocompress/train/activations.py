"""Activations inside a model: which there are, and catching them while it runs."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from autocompress.tasks.base import Inputs

# (module, positional arguments, keyword arguments, output)
_Hook = Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], None]
_CHANNELS_FIRST = (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm)
_TRANSFORMED_LAST = (nn.Linear, nn.Embedding, nn.RNNBase, nn.MultiheadAttention)
_CHANNELS_LAST = (*_TRANSFORMED_LAST, nn.LayerNorm, nn.RMSNorm)
_WEIGHTED = (nn.modules.conv._ConvNd, *_TRANSFORMED_LAST)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One module's last call in a forward pass.

    Attributes:
        name: Qualified name.
        has_weight: Whether it is a Linear, convolution, embedding, recurrent or attention layer.
        input_shape: Shape of its first argument if that is a float tensor, else empty.
        output_shape: Shape of its output, or of the first of several; empty if that is no tensor.
        channel_dim: Dimension of the channels: that of the module if its type tells, else that of
            the module called before it.
    """

    name: str
    has_weight: bool
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    channel_dim: int

    @property
    def n_positions(self) -> int:
        """Places of an output apart from examples and channels."""
        if len(self.output_shape) < 3:
            return 1
        return math.prod(self.output_shape[1:]) // self.output_shape[self.channel_dim]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tap:
    """Where an activation is caught.

    Attributes:
        name: Qualified name of the module.
        side: Whether its input or its output is meant.
        channel_dim: Dimension of the channels, the only one in which two models may differ.
    """

    name: str
    side: Literal["input", "output"]
    channel_dim: int


def trace_calls(model: nn.Module, inputs: Inputs) -> tuple[Call, ...]:
    """Run a model once, in eval mode and without gradients; its calls in the order they finish.

    A module inside another finishes first; the model itself is left out. torch's fused encoder
    kernel, which calls no modules inside a layer, is off meanwhile.

    Args:
        model: Modules keep their modes; nothing else changes.
        inputs: On the model's device.
    """
    calls: dict[str, Call] = {}
    modes = {module: module.training for module in model.modules()}
    is_fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    with contextlib.ExitStack() as stack:
        for name, module in model.named_modules():
            if name:
                handle = module.register_forward_hook(_note(name, calls), with_kwargs=True)
                stack.callback(handle.remove)
        try:
            with torch.no_grad():
                model.eval()(*inputs)
        finally:
            torch.backends.mha.set_fastpath_enabled(is_fused)
            for module, is_training in modes.items():
                module.training = is_training
    return tuple(calls.values())


def _note(name: str, calls: dict[str, Call]) -> _Hook:
    def hook(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: object
    ) -> None:
        if isinstance(module, _CHANNELS_FIRST):
            channel_dim = 1
        elif isinstance(module, _CHANNELS_LAST):
            channel_dim = -1
        else:
            channel_dim = next(reversed(calls.values())).channel_dim if calls else 1
        calls.pop(name, None)  # a second call goes to the end
        calls[name] = Call(
            name=name,
            has_weight=isinstance(module, _WEIGHTED),
            input_shape=_float_shape(_first_argument(args, kwargs)),
            output_shape=_float_shape(_first_output(output)),
            channel_dim=channel_dim,
        )

    return hook


@contextlib.contextmanager
def catching(model: nn.Module, taps: tuple[Tap, ...]) -> Iterator[Mapping[Tap, Tensor]]:
    """Catch activations whenever the model runs inside the block; the hooks go with it.

    Yields:
        The activations of the latest run.
    """
    caught: dict[Tap, Tensor] = {}
    with contextlib.ExitStack() as stack:
        for tap in taps:
            module = model.get_submodule(tap.name)
            handle = module.register_forward_hook(_catch(tap, caught), with_kwargs=True)
            stack.callback(handle.remove)
        try:
            yield caught
        finally:
            caught.clear()


def _catch(tap: Tap, caught: dict[Tap, Tensor]) -> _Hook:
    def hook(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: object
    ) -> None:
        is_input = tap.side == "input"
        caught[tap] = _first_argument(args, kwargs) if is_input else _first_output(output)

    return hook


def _first_argument(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[0] if args else next(iter(kwargs.values()), None)


def _first_output(output: object) -> Any:
    return output[0] if isinstance(output, tuple) and output else output


def _float_shape(value: object) -> tuple[int, ...]:
    if isinstance(value, Tensor) and value.is_floating_point():
        return tuple(value.shape)
    return ()
