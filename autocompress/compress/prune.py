"""Structured pruning: how many channels a ratio removes, which ones, and the cut."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from torch import nn

from autocompress.analysis.channel_groups import ChannelGroup, cut_channels_
from autocompress.compress.importance import Gradients, score_channels


def kept_channels(n_channels: int, pruning_ratio: float, round_to: int) -> int:
    """Number of channels that stay: the multiple of `round_to` nearest to what the ratio leaves.

    Runtimes compute in blocks of 8 or 16 channels: 17 channels can cost twice what 16 do. Groups
    of at most `round_to` channels are rounded to single channels instead.

    Args:
        n_channels: Channels of the group, >= 1.
        pruning_ratio: Share of channels REMOVED, in [0, 1).
        round_to: Granularity, >= 1.

    >>> [kept_channels(32, ratio, 8) for ratio in (0.0, 0.3, 0.5, 0.99)]
    [32, 24, 16, 8]
    """
    exact = n_channels * (1.0 - pruning_ratio)
    step = round_to if n_channels > round_to else 1
    kept = round(exact / step) * step
    return n_channels if pruning_ratio == 0.0 else max(min(step, n_channels), min(kept, n_channels))


def prune_(
    model: nn.Module,
    ratios: Iterable[tuple[ChannelGroup, float]],
    *,
    criterion: str,
    round_to: int,
    gradients: Gradients | None = None,
) -> dict[str, int]:
    """Cut the least important channels of groups, in place.

    All scores are taken before the first cut, so the order of the groups does not matter.

    Args:
        model: A copy of the model the groups were found in; changed.
        ratios: Each group at most once, with the share of its channels REMOVED, in [0, 1).
        criterion: Name in `importance.CRITERIA`.
        round_to: Kept widths are multiples of this.
        gradients: Parameter name -> gradient, for criteria that need them.

    Returns:
        Group name -> number of channels removed; 0 if rounding leaves the width as it is.
    """
    cuts: list[tuple[ChannelGroup, NDArray[np.int64]]] = []
    for group, ratio in ratios:
        n_removed = group.n_channels - kept_channels(group.n_channels, ratio, round_to)
        weakest = np.empty(0, dtype=np.int64)
        if n_removed > 0:
            scores = score_channels(model, group, criterion, gradients)
            weakest = np.argsort(scores, kind="stable")[:n_removed]
        cuts.append((group, weakest))
    cut_channels_(model, [(group, weakest) for group, weakest in cuts if len(weakest)])
    return {group.name: len(weakest) for group, weakest in cuts}
