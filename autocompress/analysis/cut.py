"""Cutting channels out of a model: recorded groups are replayed, no graph is built.

Every tensor is sliced once, whatever the number of groups that end in it, and a parameter that
several layers own stays one parameter.
"""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autocompress.analysis.channel_group import ChannelGroup, Side
from autocompress.analysis.slots import (
    Convolution,
    is_depthwise,
    n_directions,
    slots_of,
    width_of,
)
from autocompress.errors import InputError
from autocompress.tasks.frozen import channels_of

_BATCH_OR_INSTANCE = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
Cut = tuple[ChannelGroup, NDArray[np.int64]]
Doomed = dict[str, dict[Side, NDArray[np.int64]]]


def cut_channels_(model: nn.Module, cuts: Iterable[Cut]) -> None:
    """Remove channels of groups from a model, in place.

    Several groups can end in one layer (after a concatenation), and a cut shifts what lies behind
    it: each layer is cut once, by all groups. To cut again, see `regroup.regroup`.

    Args:
        model: A copy of the model the groups were found in, not cut before; changed.
        cuts: Each group at most once, with the channels to remove: fewer than all, shape (n,).
    """
    cuts = list(cuts)
    modules = dict(model.named_modules())
    sliced: dict[int, tuple[Tensor, Tensor]] = {}
    for layer, sides in doomed_channels(modules, cuts).items():
        _cut_layer_(modules[layer], sides, sliced)
    for group, channels in cuts:
        for patch in group.attributes:
            n_kept = group.n_channels - len(np.unique(channels))
            setattr(modules[patch.module], patch.attribute, n_kept * patch.per_channel)


def doomed_channels(modules: dict[str, nn.Module], cuts: Iterable[Cut]) -> Doomed:
    """Layer -> side -> indices of its channels that fall, sorted, each once."""
    parts: dict[tuple[str, Side], list[NDArray[np.int64]]] = {}
    for group, channels in cuts:
        for member in group.members:
            # a depthwise convolution has one set of channels, whichever side names them
            side: Side = "out" if is_depthwise(modules[member.layer]) else member.side
            parts.setdefault((member.layer, side), []).append(member.indices_of(channels))
    doomed: Doomed = {}
    for (layer, side), indices in parts.items():
        one = indices[0] if len(indices) == 1 else np.concatenate(indices)
        doomed.setdefault(layer, {})[side] = np.unique(one)
    return doomed


def _cut_layer_(
    layer: nn.Module,
    sides: dict[Side, NDArray[np.int64]],
    sliced: dict[int, tuple[Tensor, Tensor]],
) -> None:
    kept: dict[str, dict[int, Tensor]] = {}
    for side, channels in sides.items():
        same: dict[tuple[int, int], Tensor] = {}  # most tensors of a layer lose the same indices
        for slot in slots_of(layer, side):
            key = (slot.width, slot.n_repeats)
            if key not in same:
                stays = np.ones(slot.width * slot.n_repeats, dtype=np.bool_)
                stays[slot.indices(channels)] = False
                same[key] = torch.from_numpy(np.flatnonzero(stays))
            kept.setdefault(slot.tensor, {})[slot.dim] = same[key]
    for name, by_dim in kept.items():
        tensor = layer._parameters.get(name, layer._buffers.get(name))
        if tensor is None:
            raise InputError(
                f"`{name}` of a {type(layer).__name__} must be a parameter of its own to be cut, "
                "but is computed from others.",
                "Remove parametrizations and weight norm first.",
            )
        if id(tensor) not in sliced:
            sliced[id(tensor)] = tensor, _select(tensor, by_dim)  # the old one keeps its id taken
        setattr(layer, name, sliced[id(tensor)][1])
    _set_widths_(layer, {side: width_of(layer, side) - len(c) for side, c in sides.items()})
    if isinstance(layer, nn.RNNBase):
        layer.flatten_parameters()


def _select(tensor: Tensor, kept: dict[int, Tensor]) -> Tensor:
    """A copy that keeps some indices of some dimensions; a parameter stays a parameter."""
    selected = tensor.detach()
    for dim, indices in kept.items():
        selected = selected.index_select(dim, indices.to(tensor.device))
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(selected, requires_grad=tensor.requires_grad)
    return selected


def _set_widths_(layer: nn.Module, widths: dict[Side, int]) -> None:
    """Bring the numbers a layer keeps about itself in line with its tensors."""
    declared = channels_of(layer)
    if declared is not None:
        for attribute, side in declared.attributes.items():
            wanted: Side = "in" if side == "into" else "out"
            setattr(layer, attribute, width_of(layer, wanted))  # of tensors that are cut by now
    elif isinstance(layer, Convolution):
        n_before = layer.out_channels
        n_out = widths.get("out", n_before)
        layer.in_channels = n_out if is_depthwise(layer) else widths.get("in", layer.in_channels)
        layer.out_channels = n_out
        if layer.groups > 1:  # whole groups fall
            layer.groups = layer.groups * n_out // n_before
    elif isinstance(layer, nn.Linear):
        layer.in_features = widths.get("in", layer.in_features)
        layer.out_features = widths.get("out", layer.out_features)
    elif isinstance(layer, nn.RNNBase):
        layer.input_size = widths.get("in", layer.input_size)
        layer.hidden_size = widths.get("out", width_of(layer, "out")) // n_directions(layer)
    elif isinstance(layer, nn.Embedding):
        layer.embedding_dim = widths["out"]
    else:
        _set_norm_width_(layer, next(iter(widths.values())))


def _set_norm_width_(layer: nn.Module, width: int) -> None:
    if isinstance(layer, nn.GroupNorm):  # whole groups fall
        layer.num_groups = layer.num_groups * width // layer.num_channels
        layer.num_channels = width
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = width if layer.num_parameters > 1 else 1
    elif isinstance(layer, _BATCH_OR_INSTANCE):
        layer.num_features = width
