"""Channels that must be cut together, each group proved by cutting it.

torch-pruning's dependency graph is right on most networks and silently wrong on some; what it
cannot trace or gets wrong is found by probing. No group is trusted: each is cut on a copy, and the
copy must compute what the model computes when every consumer ignores the cut channels.
"""

import copy

import numpy as np
from numpy.typing import NDArray
from torch import nn

from autocompress.analysis.channel_group import AttributePatch, ChannelGroup, GroupMember
from autocompress.analysis.channel_probe import probe_channels
from autocompress.analysis.channel_units import find_families
from autocompress.analysis.cut import cut_channels_
from autocompress.analysis.dependency_graph import trace_groups
from autocompress.analysis.exactness import irregular, why_not_exact
from autocompress.analysis.probed_model import ProbedModel
from autocompress.analysis.proof import prove_families
from autocompress.analysis.slots import width_of
from autocompress.errors import first_line
from autocompress.tasks.base import Inputs

__all__ = [
    "UNTRACED",
    "AttributePatch",
    "ChannelGroup",
    "GroupMember",
    "cut_channels_",
    "find_channel_groups",
]

UNTRACED = "(all)"  # the name under which all groups of an untraceable model are refused


def find_channel_groups(
    model: nn.Module, example_inputs: Inputs
) -> tuple[tuple[ChannelGroup, ...], dict[str, str]]:
    """Find the groups that can be cut exactly.

    Args:
        model: Not modified.
        example_inputs: Inputs the model runs on, each of shape (N, ...) with N >= 2.

    Returns:
        The groups in the order of their first layers, and the refused ones: name -> why.
    """
    order = {name: i for i, (name, _) in enumerate(model.named_modules())}
    model = copy.deepcopy(model).eval()
    groups, refused = _groups_by_graph(model, example_inputs, order)
    try:
        probed = ProbedModel(model, example_inputs)
        producers = _uncovered(probed, model, groups)
        families = find_families(model, probe_channels(probed, producers))
    except Exception:  # noqa: BLE001 - any forward may refuse made-up numbers, in any way
        return tuple(groups), refused
    by_probing, reasons = prove_families(model, families, groups, probed, example_inputs)
    refused.pop(UNTRACED, None)
    known = {group.name for group in (*groups, *by_probing)} | set(producers)
    refused = {name: reason for name, reason in refused.items() if name not in known} | reasons
    together = sorted([*groups, *by_probing], key=lambda group: order[group.name])
    return tuple(together), dict(sorted(refused.items(), key=lambda item: order[item[0]]))


def _groups_by_graph(
    model: nn.Module, inputs: Inputs, order: dict[str, int]
) -> tuple[list[ChannelGroup], dict[str, str]]:
    try:
        found = trace_groups(model, inputs)
    except Exception as error:  # noqa: BLE001 - torch-pruning raises many types when it cannot trace
        return [], {UNTRACED: f"the model's channels cannot be traced: {first_line(error)}"}
    groups: list[ChannelGroup] = []
    refused: dict[str, str] = {}
    for group, reason in sorted(found, key=lambda item: order[item[0].name]):
        reason = reason or why_not_exact(model, [(group, irregular(group.n_channels))], inputs)
        if reason:
            refused[group.name] = reason
        else:
            groups.append(group)
    return groups, refused


def _uncovered(
    probed: ProbedModel, model: nn.Module, groups: list[ChannelGroup]
) -> dict[str, NDArray[np.int64]]:
    """Called layers and those of their output channels that are in no group yet."""
    taken: dict[str, set[int]] = {}
    for group in groups:
        for member in group.members:
            if member.side == "out":
                taken.setdefault(member.layer, set()).update(member.local.tolist())
    uncovered: dict[str, NDArray[np.int64]] = {}
    for name in probed.called:
        width = width_of(model.get_submodule(name), "out")
        free = np.setdiff1d(np.arange(width), list(taken.get(name, ())))
        if width > 1 and len(free):  # a single channel is often a gate on many: it joins nothing
            uncovered[name] = free
    return uncovered
