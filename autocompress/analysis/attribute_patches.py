"""Numbers in a model's code that have to shrink with a group: `num_heads` and its kin."""

import itertools
from collections.abc import Iterator

import numpy as np
from torch import nn

from autocompress.analysis.channel_group import AttributePatch, ChannelGroup
from autocompress.analysis.slots import CUTTABLE, is_weighted

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
