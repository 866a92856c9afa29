"""Channel groups of a model that has been cut: the same groups, renumbered."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from autocompress.analysis.channel_group import ChannelGroup, GroupMember, Side
from autocompress.analysis.cut import Cut


def regroup(groups: Iterable[ChannelGroup], cuts: Sequence[Cut]) -> tuple[ChannelGroup, ...]:
    """Renumber groups for the model after `cut_channels_(model, cuts)`, to cut it once more.

    A group that was not cut can still move, where it shares a layer with one that was.

    Args:
        groups: Of the model before the cuts.
        cuts: What was cut: groups out of `groups`, each at most once, and their channels.

    Returns:
        As many groups, in the same order; channels that are left keep their order.
    """
    fallen: dict[tuple[str, Side], NDArray[np.int64]] = {}
    for group, channels in cuts:
        for member in group.members:
            place = (member.layer, member.side)
            before = fallen.get(place, np.empty(0, dtype=np.int64))
            fallen[place] = np.union1d(before, member.indices_of(channels))
    gone = {group.name: np.unique(channels) for group, channels in cuts}
    nothing = np.empty(0, dtype=np.int64)
    return tuple(_renumber(group, gone.get(group.name, nothing), fallen) for group in groups)


def _renumber(
    group: ChannelGroup,
    gone: NDArray[np.int64],
    fallen: dict[tuple[str, Side], NDArray[np.int64]],
) -> ChannelGroup:
    members = []
    for member in group.members:
        is_left = ~np.isin(member.root, gone)
        local, root = member.local[is_left], member.root[is_left]
        below = fallen.get((member.layer, member.side), gone[:0])
        members.append(
            GroupMember(
                layer=member.layer,
                side=member.side,
                local=local - np.searchsorted(below, local),
                root=root - np.searchsorted(gone, root),
            )
        )
    return dataclasses.replace(
        group, n_channels=group.n_channels - len(gone), members=tuple(members)
    )
