"""Structured pruning: how many channels a ratio removes, and which ones."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import nn

from autocompress.analysis.channel_group import ChannelGroup
from autocompress.compress.calibration import CalibrationStatistics
from autocompress.compress.importance.score import score_channels
from autocompress.errors import InputError

Scope = Literal["local", "global"]
Channels: TypeAlias = NDArray[np.int64]
Ratio: TypeAlias = tuple[ChannelGroup, float]


def kept_channels(n_channels: int, pruning_ratio: float, round_to: int, block: int = 1) -> int:
    """Number of channels that stay: the multiple of the step nearest to what the ratio leaves.

    Runtimes compute in blocks of 8 or 16 channels: 17 channels can cost twice what 16 do. Groups
    of at most one step are rounded to single channels instead.

    Args:
        n_channels: Channels of the group, >= 1.
        pruning_ratio: Share of channels REMOVED, in [0, 1).
        round_to: Least number of a layer's channels in a step, >= 1.
        block: Channels of the layer that one of the group stands for, as in `ChannelGroup`.

    >>> [kept_channels(32, ratio, 8) for ratio in (0.0, 0.3, 0.5, 0.99)]
    [32, 24, 16, 8]
    >>> kept_channels(12, 0.3, 8, block=64)  # of 12 heads, each already wide enough
    8
    """
    exact = n_channels * (1.0 - pruning_ratio)
    step = _step(n_channels, round_to, block)
    kept = round(exact / step) * step
    return n_channels if pruning_ratio == 0.0 else max(min(step, n_channels), min(kept, n_channels))


def choose_channels(
    model: nn.Module,
    ratios: Iterable[Ratio],
    *,
    criterion: str,
    round_to: int,
    statistics: CalibrationStatistics | None = None,
    scope: Scope = "local",
    counts: Mapping[str, int] | None = None,
) -> list[tuple[ChannelGroup, Channels]]:
    """Choose the least important channels of groups.

    Args:
        model: The model the groups were found in; not modified.
        ratios: Each group at most once, with the share of its channels REMOVED, in [0, 1).
        criterion: Name in `importance.table.CRITERIA`.
        round_to: Kept widths are multiples of this.
        statistics: Facts from data, for criteria that need them.
        scope: `local` takes from each group what its ratio says. `global` takes as many in all,
            wherever they matter least: see `global_counts`.
        counts: Group name -> how many channels it loses, in place of ratio, rounding and scope.

    Returns:
        The groups in the order given, each with the channels to remove, weakest first; of equally
        weak ones the earlier go.

    Raises:
        InputError: If the criterion is unknown or lacks statistics, or a count leaves no channel.
    """
    ratios = list(ratios)
    is_global = scope == "global" and counts is None
    n_removed = {
        group.name: _local_count(group, ratio, round_to)
        if counts is None
        else _checked_count(group, counts)
        for group, ratio in ratios
    }
    scores = {
        group.name: score_channels(model, group, criterion, statistics)
        for group, ratio in ratios
        if n_removed[group.name] > 0 or (is_global and ratio > 0.0)
    }
    if is_global:
        steps = {g.name: _step(g.n_channels, round_to, g.block) for g, _ in ratios}
        n_removed |= global_counts(scores, steps, sum(n_removed.values()))
    nobody = np.empty(0)
    return [
        (group, _weakest(scores.get(group.name, nobody), n_removed[group.name]))
        for group, _ in ratios
    ]


def global_counts(
    scores: Mapping[str, NDArray[np.float64]], steps: Mapping[str, int], n_removed: int
) -> dict[str, int]:
    """How many channels each group loses if the least important of all go.

    One sort over all groups. Channels fall in steps, which keeps widths multiples of them; a step
    is as important as its channels are on average. With steps of 1 this is one sort over all
    scores. Where a step would exceed `n_removed`, smaller ones of other groups may still fit.

    Args:
        scores: Group name -> importance of its channels, comparable between groups.
        steps: Group name -> channels that fall at once; as many stay at least.
        n_removed: How many channels fall in all, at most; exactly, if all steps are equal and
            divide widths and `n_removed`, and enough may fall.

    Returns:
        Group name -> number of channels that fall.
    """
    queue: list[tuple[float, int, int, str, int]] = []  # importance, group, position, name, size
    for index, (name, values) in enumerate(scores.items()):
        ascending, start, importance = np.sort(values), 0, 0.0
        for end in range(len(values) % steps[name] or steps[name], len(values), steps[name]):
            importance = max(importance, float(ascending[start:end].mean()))  # despite rounding
            queue.append((importance, index, end, name, end - start))
            start = end
    counts, left, full = dict.fromkeys(scores, 0), n_removed, set()
    for _, _, _, name, size in sorted(queue):
        if size > left or name in full:
            full.add(name)
        else:
            counts[name] += size
            left -= size
    return counts


def stepped_counts(n_removed: int, n_steps: int) -> tuple[int, ...]:
    """Channels gone after each step of an iterative schedule: even steps that end at the target.

    Args:
        n_removed: How many channels fall in all, >= 0.
        n_steps: How many steps there are, >= 1.

    >>> stepped_counts(8, 3)
    (3, 5, 8)
    """
    return tuple(round(n_removed * step / n_steps) for step in range(1, n_steps + 1))


def _step(n_channels: int, round_to: int, block: int) -> int:
    """Channels of a group that go at once so that widths stay multiples of `round_to`."""
    step = math.ceil(round_to / block)
    return step if n_channels > step else 1


def _local_count(group: ChannelGroup, ratio: float, round_to: int) -> int:
    return group.n_channels - kept_channels(group.n_channels, ratio, round_to, group.block)


def _weakest(scores: NDArray[np.float64], n_removed: int) -> Channels:
    return np.argsort(scores, kind="stable")[:n_removed].astype(np.int64, copy=False)


def _checked_count(group: ChannelGroup, counts: Mapping[str, int]) -> int:
    count = counts.get(group.name, 0)
    if not 0 <= count < group.n_channels:
        raise InputError(
            f"Group {group.name!r} must lose between 0 and {group.n_channels - 1} of its "
            f"{group.n_channels} channels, but {count} were asked for."
        )
    return count


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PruningPolicy:
    """How channels and weights are chosen.

    Attributes:
        criterion: Name in `importance.table.CRITERIA`.
        round_to: Kept widths are multiples of this.
        scope: `local` takes from each channel group what its ratio says; `global` takes as many in
            all, wherever the scores are lowest.
        sparsity_scope: The same for single weights.
    """

    criterion: str = "l2"
    round_to: int = 8
    scope: Scope = "local"
    sparsity_scope: Scope = "local"
