"""How many channels a packed file kept of each channel group, read off the shapes of its tensors.

A plan says what share goes. How that was rounded, and how it was spread where all groups were
pruned together, it does not say.
"""

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from torch import nn

from autocompress.analysis.channel_group import ChannelGroup
from autocompress.analysis.slots import slots_of
from autocompress.errors import InputError
from autocompress.export.loading.counterparts import find_counterparts
from autocompress.export.loading.marks import Elements, Marks
from autocompress.onnx_graph.constants import constant_values
from autocompress.onnx_graph.graph import constants
from autocompress.plan import CompressionPlan

Sizes = Mapping[tuple[str, int], int]


def packed_sizes(fresh: onnx.ModelProto, packed: onnx.ModelProto, marks: Marks) -> Sizes:
    """(Qualified name of a parameter, dimension) -> its size in the file.

    Args:
        fresh: Export of a marked model of the same structure; its widths may differ.
        packed: The file's graph.
        marks: Of the model.

    Returns:
        What can be told; nothing if the structures differ.
    """
    try:
        found = find_counterparts(fresh, packed, any_width=True)
    except InputError:
        return {}
    ours = constants(fresh.graph)
    theirs = constant_values(packed, (name for _, name, _ in found.tensors))
    sizes: dict[tuple[str, int], int] = {}
    for mine, yours, _ in found.tensors:
        elements = marks.elements(ours[mine])
        if elements is not None and elements.ndim == theirs[yours].ndim:
            path = marks.slot_of(int(elements.flat[0])).path
            for axis, dim in _dimensions(elements, marks):
                sizes[path, dim] = theirs[yours].shape[axis]
    return sizes


def plan_of_sizes(
    plan: CompressionPlan, model: nn.Module, groups: tuple[ChannelGroup, ...], sizes: Sizes
) -> CompressionPlan:
    """The plan whose ratios leave what the file has, where that can be told.

    Args:
        plan: From the file.
        model: The uncompressed model.
        groups: Its channel groups.
        sizes: What `packed_sizes` returned.
    """
    pruned = [group for group in groups if group.name in plan.pruning_ratios]
    ends: dict[tuple[str, str], set[str]] = {}
    for group in pruned:
        for member in group.members:
            ends.setdefault((member.layer, member.side), set()).add(group.name)
    ratios = dict(plan.pruning_ratios)
    for group in pruned:
        lost = next(_lost_channels(group, model, ends, sizes), None)
        if lost is not None:
            ratios[group.name] = lost / group.n_channels
    return dataclasses.replace(plan, pruning_ratios=ratios)


def _lost_channels(
    group: ChannelGroup,
    model: nn.Module,
    ends: Mapping[tuple[str, str], set[str]],
    sizes: Sizes,
) -> Iterator[int]:
    """How many channels a group lost, as each tensor that only this group cuts tells it."""
    for member in group.members:
        if len(ends[member.layer, member.side]) > 1:
            continue
        layer = model.get_submodule(member.layer)
        for slot in slots_of(layer, member.side):
            size = sizes.get((f"{member.layer}.{slot.tensor}", slot.dim))
            per_channel, rest = divmod(len(slot.indices(member.local)), group.n_channels)
            if size is None or rest or not per_channel:
                continue
            lost, rest = divmod(getattr(layer, slot.tensor).shape[slot.dim] - size, per_channel)
            if rest == 0 and 0 <= lost < group.n_channels:
                yield lost


def _dimensions(elements: Elements, marks: Marks) -> Iterator[tuple[int, int]]:
    """(Axis of an exported tensor, dimension of the parameter that runs along it)."""
    first = int(elements.flat[0])
    slot = marks.slot_of(first)
    strides = [int(np.prod(slot.shape[dim + 1 :])) for dim in range(len(slot.shape))]
    for axis, size in enumerate(elements.shape):
        if size < 2:
            continue
        step = int(elements.take(1, axis=axis).flat[0]) - first
        for dim, stride in enumerate(strides):
            if step == stride and slot.shape[dim] == size:
                yield axis, dim
