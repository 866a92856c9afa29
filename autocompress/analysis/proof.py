"""Which families of probed units are channel groups: those that can be cut exactly."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from torch import nn

from autocompress.analysis.attribute_patches import propose_patches
from autocompress.analysis.channel_group import ChannelGroup, Side
from autocompress.analysis.channel_units import Family
from autocompress.analysis.exactness import DOES_NOT_RUN, every_other, irregular, why_not_exact
from autocompress.analysis.probed_model import ProbedModel
from autocompress.tasks.base import Inputs


def prove_families(
    model: nn.Module,
    families: Sequence[Family],
    groups: Sequence[ChannelGroup],
    probed: ProbedModel,
    inputs: Inputs,
) -> tuple[list[ChannelGroup], dict[str, str]]:
    """Cut each family on copies, alone and together with all others.

    Args:
        model: In eval mode; changed meanwhile, and restored.
        families: What probing found.
        groups: What is proved already.
        probed: For the reason of a refusal.
        inputs: Inputs the model runs on.

    Returns:
        The families that are groups, and the refused ones: name -> why.
    """
    taken = {place: group.name for group in groups for place in _places(group)}
    names = {group.name for group in groups}
    proved: list[ChannelGroup] = []
    failed: list[tuple[Family, str]] = []
    for family in families:
        group, reason = family.group, family.reason
        if others := _places(group) & taken.keys():
            reason = reason or f"its channels depend on those of '{taken[min(others)]}'"
        free_names = [name for name in family.producers if name not in names]
        if not free_names:
            reason = reason or f"'{group.name}' has other channels, which are cut on their own"
        if not reason:
            group, reason = _prove(model, group, inputs)
        if reason:
            failed.append((family, _explain(reason, group, probed)))
        else:
            proved.append(dataclasses.replace(group, name=free_names[0]))
            names.add(free_names[0])
    proved, alone = _together(model, groups, proved, inputs)
    names = {group.name for group in (*groups, *proved)}
    refused = dict.fromkeys(alone, "it cannot be cut together with other groups")
    for family, reason in failed:
        for name in family.producers:
            if name not in names:
                refused.setdefault(name, reason)
                break
    return proved, refused


def _prove(model: nn.Module, group: ChannelGroup, inputs: Inputs) -> tuple[ChannelGroup, str]:
    """The group with the attributes that make its cut exact, and why none does if none does."""
    reasons: list[str] = []
    for patches in propose_patches(model, group):
        candidate = dataclasses.replace(group, attributes=patches)
        for choose in (every_other, irregular):
            reason = why_not_exact(model, [(candidate, choose(group.n_channels))], inputs)
            if reason:
                reasons.append(reason)
                break
        else:
            return candidate, ""
    return group, reasons[0]


def _explain(reason: str, group: ChannelGroup, probed: ProbedModel) -> str:
    """Name the parameter outside of any layer that a cut stumbles over, if it is one."""
    if not reason.startswith(DOES_NOT_RUN):
        return reason
    for parameter in probed.free_parameters:
        hits = probed.probe_parameter(parameter, 0)
        for member in group.members:
            reached = hits.get(("in", member.layer))
            if member.side == "in" and reached is not None and reached[0, member.local].any():
                return f"it runs through '{parameter}', a parameter outside of any layer"
    return reason


def _together(
    model: nn.Module,
    groups: Sequence[ChannelGroup],
    proved: list[ChannelGroup],
    inputs: Inputs,
) -> tuple[list[ChannelGroup], list[str]]:
    """Those of the proved groups that can be cut all at once, and the names of the others."""

    def why_not(chosen: Sequence[ChannelGroup]) -> str:
        cuts = [(group, every_other(group.n_channels)) for group in chosen]
        return why_not_exact(model, cuts, inputs)

    if not proved or len(groups) + len(proved) < 2 or not why_not([*groups, *proved]):
        return proved, []
    kept: list[ChannelGroup] = []
    for group in proved:
        if not why_not([*groups, *kept, group]):
            kept.append(group)
    return kept, [group.name for group in proved if group not in kept]


def _places(group: ChannelGroup) -> set[tuple[str, Side, int]]:
    return {(m.layer, m.side, c) for m in group.members for c in np.unique(m.local).tolist()}
