"""Parts of a model that stay exactly as they are."""

import copy
import dataclasses
import fnmatch
from collections.abc import Mapping, Sequence
from typing import Final

from torch import nn

from autocompress.errors import InputError

_LAYER_CHANNELS_ATTRIBUTE: Final = "autocompress_channels"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LayerChannels:
    """What shrinks when channels of a layer are cut.

    A layer takes one tensor and returns one; output channel `c` must depend on nothing else of
    `out` than what lies at `c`, and input channel `c` be read by nothing else of `into` than what
    lies there. Groups with such layers are proved by cutting, as all others are. A class says it
    itself by an attribute of this name:

        class ScaledConv(nn.Module):
            autocompress_channels = LayerChannels(
                out={"weight": 0, "bias": 0}, into={"weight": 1}, dim=1
            )

    Attributes:
        out: Parameter or buffer -> dimension along which it holds one entry per output channel.
        into: Parameter or buffer -> dimension along which it holds one entry per input channel.
        dim: Dimension of the channels in the layer's input and output; negative ones count from
            the end.
        attributes: Attributes of the layer that count channels, such as
            `{"out_features": "out", "in_features": "into"}`; they shrink as well.
    """

    out: Mapping[str, int]
    into: Mapping[str, int]
    dim: int = 1
    attributes: Mapping[str, str] = dataclasses.field(default_factory=dict)


def channels_of(layer: nn.Module) -> LayerChannels | None:
    """What a layer, its class or the task says about its channels; None if nobody does."""
    found = getattr(layer, _LAYER_CHANNELS_ATTRIBUTE, None)
    return found if isinstance(found, LayerChannels) else None


def check_channels(name: str, layer: nn.Module) -> None:
    """Check what a layer says about its channels, if it says something.

    Raises:
        InputError: If it names what it does not own, or a dimension that there is not.
    """
    declared = channels_of(layer)
    if declared is None:
        return
    where = f"`LayerChannels` of {type(layer).__name__} {name!r}"
    held = {**layer._parameters, **layer._buffers}
    own = {name: tensor for name, tensor in held.items() if tensor is not None}
    for side, tensors in (("out", declared.out), ("into", declared.into)):
        if not tensors:
            raise InputError(f"{where} must name at least one tensor for {side!r}, but has none.")
        for tensor, dim in tensors.items():
            if tensor not in own:
                raise InputError(
                    f"{where} must name parameters or buffers that the layer itself owns, "
                    f"but it has no {tensor!r}.",
                    f"It has: {', '.join(own) or 'none'}.",
                )
            if not 0 <= dim < own[tensor].ndim:
                raise InputError(
                    f"{where} must give a dimension of {tensor!r} in [0, {own[tensor].ndim - 1}], "
                    f"but gives {dim}."
                )
        widths = {tensor: own[tensor].shape[dim] for tensor, dim in tensors.items()}
        if len(set(widths.values())) > 1:
            raise InputError(
                f"{where} must name tensors that hold equally many channels for {side!r}, "
                f"but they hold {widths}."
            )
    for attribute, side in declared.attributes.items():
        if side not in ("out", "into") or not isinstance(getattr(layer, attribute, None), int):
            raise InputError(
                f"{where} must map attributes that are whole numbers to 'out' or 'into', "
                f"but maps {attribute!r} to {side!r}."
            )


def declare_channels_(layer: nn.Module, channels: LayerChannels) -> None:
    """Let a layer say where its channels lie."""
    object.__setattr__(layer, _LAYER_CHANNELS_ATTRIBUTE, channels)


_ATTRIBUTE: Final = "autocompress_frozen"


def freeze(model: nn.Module, patterns: Sequence[str]) -> nn.Module:
    """Mark modules, and all within them, as frozen.

    Args:
        model: Not modified.
        patterns: Qualified names, with wildcards.

    Returns:
        The model itself if there are no patterns, else a copy whose frozen parameters need no
        gradients.

    Raises:
        InputError: If the patterns are one text, one fits no module, or everything would be frozen.
    """
    if not patterns:
        return model
    if isinstance(patterns, str):
        raise InputError(
            f"`Task.frozen` must be a sequence of names, but got the text {patterns!r}.",
            f"Give frozen=({patterns!r},): a single name needs its comma.",
        )
    frozen = copy.deepcopy(model)
    if not any(parameter.requires_grad for parameter in frozen.parameters()):
        frozen.requires_grad_(True)  # loaded for inference
    modules = dict(frozen.named_modules())
    for pattern in patterns:
        chosen = [name for name in modules if name and fnmatch.fnmatchcase(name, pattern)]
        if not chosen:
            listed = ", ".join(name for name, _ in frozen.named_children())
            raise InputError(
                f"`Task.frozen` must name modules of the model, but {pattern!r} fits none.",
                f"Its top level has: {listed or 'no modules'}.",
            )
        for name in chosen:
            for module in modules[name].modules():
                object.__setattr__(module, _ATTRIBUTE, True)
    keep_frozen_(frozen)
    if not any(parameter.requires_grad for parameter in frozen.parameters()):
        raise InputError(
            "`Task.frozen` must leave something to compress, but it freezes every parameter."
        )
    return frozen


def is_frozen(module: nn.Module) -> bool:
    """Whether a module must stay as it is."""
    return bool(getattr(module, _ATTRIBUTE, False))


def keep_frozen_(model: nn.Module) -> None:
    """Bring frozen modules into eval mode and take their parameters out of training, in place."""
    for module in model.modules():
        if is_frozen(module):
            module.training = False
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)
