"""One score per channel of a group, from every layer that has a say.

Dimension key: `C` channels of the group, `n` weights of one channel in one layer.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autocompress.analysis.channel_group import ChannelGroup, GroupMember
from autocompress.compress.calibration import CalibrationStatistics
from autocompress.compress.compressed_layers import mask_of
from autocompress.compress.importance.channel_rows import ChannelRows, rows_of, scored_slots
from autocompress.compress.importance.registry import CriterionSpec, find_criterion
from autocompress.errors import InputError


def score_channels(
    model: nn.Module,
    group: ChannelGroup,
    criterion: str,
    statistics: CalibrationStatistics | None = None,
) -> NDArray[np.float64]:
    """Score every channel of a group: the mean over its layers, each layer scaled to mean 1.

    Every layer that produces or consumes the channels has a say; scaling keeps a layer with large
    weights from deciding alone (as in DepGraph; Fang et al. 2023).

    Args:
        model: The model the group belongs to; not modified.
        group: Its `C` channels are scored.
        criterion: Name in `CRITERIA`.
        statistics: Facts from data, for criteria that need them.

    Returns:
        Scores of shape (C,), higher is more important.

    Raises:
        InputError: If there is no such criterion, or the statistics it needs are missing.
    """
    spec = find_criterion(criterion)
    total = np.zeros(group.n_channels)
    n_layers = 0
    for member in group.members:
        layer = model.get_submodule(member.layer)
        slots = scored_slots(layer, member.side, spec.reads)
        if not slots:
            continue
        weights = {slot.tensor: _masked(layer, slot.tensor) for slot in slots}
        facts = _facts_of(model, member.layer, weights, criterion, statistics)
        rows = ChannelRows(
            weight=rows_of(slots, weights, member.local),
            fact=rows_of(slots, facts, member.local) if facts else None,
            group=group.name,
        )
        layer_total = _total_per_channel(spec, rows, member, group.n_channels)
        mean = layer_total.mean()
        total += layer_total / mean if mean > 0 else layer_total
        n_layers += 1
    if n_layers == 0 and spec.instead:
        return score_channels(model, group, spec.instead, statistics)
    return total / max(1, n_layers)


def _masked(layer: nn.Module, parameter: str) -> Tensor:
    """A weight as the layer computes with it: what an earlier step zeroed counts nothing."""
    weight: Tensor = getattr(layer, parameter).detach()
    mask = mask_of(layer, parameter)
    return weight if mask is None else weight * mask


def _facts_of(
    model: nn.Module,
    layer: str,
    weights: Mapping[str, Tensor],
    criterion: str,
    statistics: CalibrationStatistics | None,
) -> dict[str, Tensor]:
    """Parameter name -> what the data says about it; empty if the criterion asks for nothing."""
    needs = find_criterion(criterion).needs
    if needs == "nothing":
        return {}
    known: Mapping[str, Tensor] = getattr(statistics, needs, None) or {}
    facts = {}
    for parameter, weight in weights.items():
        name = _known_name(model, f"{layer}.{parameter}", known)
        if name not in known:
            raise InputError(
                f"The criterion {criterion!r} needs the {needs.replace('_', ' ')} of {name!r}, "
                f"but the statistics hold those of {len(known)} other parameters."
            )
        if known[name].shape != weight.shape:
            raise InputError(
                f"The {needs.replace('_', ' ')} of {name!r} must have its shape "
                f"{tuple(weight.shape)}, but have {tuple(known[name].shape)}.",
                "Gather them anew after channels were cut.",
            )
        facts[parameter] = known[name]
    return facts


def _known_name(model: nn.Module, name: str, known: Mapping[str, Tensor]) -> str:
    """The name itself, or the one under which its tied parameter is known."""
    if name in known:
        return name
    parameter = model.get_parameter(name)
    every = model.named_parameters(remove_duplicate=False)
    return next((twin for twin, p in every if p is parameter and twin in known), name)


def _total_per_channel(
    spec: CriterionSpec, rows: ChannelRows, member: GroupMember, n_channels: int
) -> NDArray[np.float64]:
    """Scores of one layer, shape (C,): of joined rows, or summed over the rows of each channel."""
    root = member.root
    if spec.joins_rows and (order := _rows_by_channel(root)) is not None:
        root = root[order[:, 0]]
        at = torch.from_numpy(order)
        rows = ChannelRows(
            weight=rows.weight[at].flatten(1),
            fact=None if rows.fact is None else rows.fact[at].flatten(1),
            group=rows.group,
        )
    scores = spec.score(rows).double().cpu().numpy()
    return np.bincount(root, weights=scores, minlength=n_channels).astype(np.float64, copy=False)


def _rows_by_channel(root: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Rows of each channel, shape (channels, rows of each); None if some own more than others."""
    channels, counts = np.unique(root, return_counts=True)
    if len(set(counts.tolist())) != 1:
        return None
    return np.argsort(root, kind="stable").reshape(len(channels), int(counts[0]))
