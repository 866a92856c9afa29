"""Which families of probed units are channel groups: those that can be cut exactly."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from torch import nn

from autocompress.analysis.channel_group import AttributePatch, ChannelGroup, Side
from autocompress.analysis.channel_units import Family
from autocompress.analysis.exactness import DOES_NOT_RUN, every_other, irregular, why_not_exact
from autocompress.analysis.probed_model import ProbedModel
from autocompress.analysis.slots import CUTTABLE, is_weighted
from autocompress.tasks.base import Inputs

_MAX_PROPOSALS = 6
_MAX_TOGETHER = 3
# Tried first; any other number of the right value is tried as well
_USUAL_NAMES = (
    "num_heads",
    "n_heads",
    "n_head",
    "heads",
    "nhead",
    "num_attention_heads",
    "all_head_size",
    "inner_dim",
    "embed_dim",
    "hidden_size",
    "hidden_dim",
)


def propose_patches(model: nn.Module, group: ChannelGroup) -> Iterator[tuple[AttributePatch, ...]]:
    """Sets of attributes that might hold the width of a group, the likeliest first.

    Proposed are integers of the modules around the group's layers that equal the number of its
    channels, or of the channels these own in some layer. Whether they matter only a cut can tell.

    Args:
        model: Not modified.
        group: Whose width may be written down somewhere.

    Yields:
        First no attribute at all, then sets of growing size.
    """
    yield ()
    proposals = list(_proposals(model, group))[:_MAX_PROPOSALS]
    usual = tuple(patch for patch in proposals if patch.attribute in _USUAL_NAMES)
    for patch in proposals:
        yield (patch,)
    if len(usual) > 1:
        yield usual
    for size in range(2, 1 + min(_MAX_TOGETHER, len(proposals))):
        yield from (chosen for chosen in itertools.combinations(proposals, size) if chosen != usual)


def _proposals(model: nn.Module, group: ChannelGroup) -> list[AttributePatch]:
    modules = dict(model.named_modules())
    per_channel = {1} | {len(np.unique(m.local)) // group.n_channels for m in group.members}
    found: dict[tuple[str, str], AttributePatch] = {}
    for owner in _modules_around(group):
        if isinstance(modules[owner], CUTTABLE) or is_weighted(modules[owner]):
            continue
        for attribute, value in vars(modules[owner]).items():
            if type(value) is not int or attribute.startswith("_"):
                continue
            for count in sorted(per_channel):
                if value == group.n_channels * count:
                    found[owner, attribute] = AttributePatch(
                        module=owner, attribute=attribute, per_channel=count
                    )
    return sorted(found.values(), key=lambda patch: patch.attribute not in _USUAL_NAMES)


def _modules_around(group: ChannelGroup) -> list[str]:
    """Parents and grandparents of the group's layers, parents first."""
    parents = [member.layer.rpartition(".")[0] for member in group.members]
    return list(dict.fromkeys([*parents, *(name.rpartition(".")[0] for name in parents)]))


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
