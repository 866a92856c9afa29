"""From what channels reach to groups: channels that reach one another's readers fall together.

A unit is a connected component of output channels and the input channels that see them. Units of
the same make (as many channels of the same sides of the same layers) are the channels of one group.
"""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import TypeAlias

import numpy as np
from torch import nn

from autocompress.analysis.channel_group import ChannelGroup, GroupMember, Side
from autocompress.analysis.channel_probe import Reach
from autocompress.analysis.exactness import NO_CONSUMER
from autocompress.analysis.slots import Convolution, is_depthwise, is_weighted, width_of

Node: TypeAlias = tuple[str, Side, int]

Taints = defaultdict[Node, set[tuple[str, str]]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Family:
    """Units of one make.

    Attributes:
        group: They, as a group.
        producers: Weighted layers that make its channels, in the order of modules.
        reason: Why the group cannot be cut; empty if that has to be tried.
    """

    group: ChannelGroup
    producers: tuple[str, ...]
    reason: str


class _Union:
    """Disjoint sets with path halving (Tarjan & van Leeuwen 1984)."""

    def __init__(self) -> None:
        self._parents: dict[Node, Node] = {}

    def find(self, node: Node) -> Node:
        parents = self._parents
        parents.setdefault(node, node)
        while parents[node] != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    def join(self, a: Node, b: Node) -> None:
        self._parents[self.find(a)] = self.find(b)

    def sets(self) -> Iterator[list[Node]]:
        members: dict[Node, list[Node]] = defaultdict(list)
        for node in self._parents:
            members[self.find(node)].append(node)
        yield from members.values()


def find_families(model: nn.Module, reaches: Mapping[str, Reach]) -> list[Family]:
    """Group what was probed.

    Args:
        model: The model that was probed; not modified.
        reaches: Producer -> what its channels reach.

    Returns:
        One family per make of units, in the order of their first producers.
    """
    modules = dict(model.named_modules())
    weighted = {name: m for name, m in modules.items() if is_weighted(m)}
    union, taints = _Union(), Taints(set)
    for name, reach in reaches.items():
        _join_reach(union, taints, name, reach, width_of(modules[name], "out"))
    for name, module in weighted.items():
        _join_structure(union, name, module)
    _join_tied(union, taints, weighted)
    kinds: dict[tuple[tuple[str, Side, int], ...], list[list[Node]]] = defaultdict(list)
    for nodes in union.sets():
        if any(side == "out" and layer in reaches for layer, side, _ in nodes):
            make = Counter((layer, side) for layer, side, _ in nodes)
            kinds[tuple(sorted((*key, n) for key, n in make.items()))].append(sorted(nodes))
    order = {name: index for index, name in enumerate(modules)}
    families = [_family(units, modules, taints) for units in kinds.values()]
    return sorted(families, key=lambda family: order[family.producers[0]])


def _join_reach(union: _Union, taints: Taints, name: str, reach: Reach, n_channels: int) -> None:
    for row, channel in enumerate(reach.channels.tolist()):
        node: Node = (name, "out", channel)
        union.find(node)
        for (kind, layer), hits in reach.hits.items():
            reached = np.flatnonzero(hits[row]).tolist()
            if kind in ("in", "norm", "state"):
                side: Side = (
                    "in" if kind == "in" else "out"
                )  # a state is one of the layer's outputs
                for index in reached:
                    union.join(node, (layer, side, index))
            elif reached:
                taints[node].add((kind, layer))
    if reach.is_mixed:
        for channel in range(n_channels):
            union.join((name, "out", channel), (name, "out", int(reach.channels[0])))


def _join_structure(union: _Union, name: str, module: nn.Module) -> None:
    """Channels that the layer itself holds together."""
    if isinstance(module, nn.RNNBase) and module.bidirectional:
        for unit in range(module.hidden_size):
            union.join((name, "out", unit), (name, "out", unit + module.hidden_size))
    if isinstance(module, Convolution) and module.groups > 1:
        n_in, n_out = module.in_channels // module.groups, module.out_channels // module.groups
        for channel in range(module.in_channels):
            union.join((name, "in", channel), (name, "out", channel // n_in * n_out))
        for channel in range(module.out_channels):
            union.join((name, "out", channel), (name, "out", channel // n_out * n_out))


def _join_tied(union: _Union, taints: Taints, modules: Mapping[str, nn.Module]) -> None:
    """Channels that share weights fall together; those that share them with rows cannot fall."""
    owners: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for name, module in modules.items():
        for own, parameter in module.named_parameters(recurse=False):
            owners[id(parameter)].append((name, own))
    for tied in owners.values():
        names = list(dict.fromkeys(name for name, _ in tied))
        if len(names) < 2:
            continue
        is_weight = all(own == "weight" for _, own in tied)
        sides = [_sides_of_weight(modules[name]) if is_weight else (None, None) for name in names]
        for by_layer in zip(*sides, strict=True):
            ends = list(zip(names, by_layer, strict=True))
            for name, side in ends:
                for channel in range(width_of(modules[name], side) if side else 0):
                    if None in by_layer:
                        taints[name, side, channel].add(("tied", name))
                    else:
                        union.join((*ends[0], channel), (name, side, channel))
        if not is_weight:
            for name in names:
                for channel in range(width_of(modules[name], "out")):
                    taints[name, "out", channel].add(("tied", name))


def _sides_of_weight(module: nn.Module) -> tuple[Side | None, Side | None]:
    """Which side each of the first two dimensions of a weight holds; None cannot be cut."""
    if isinstance(module, nn.Linear):
        return ("out", "in")
    if isinstance(module, nn.Embedding):
        return (None, "out")
    if isinstance(module, Convolution) and module.groups == 1:
        return ("in", "out") if module.transposed else ("out", "in")
    return (None, None)


def _family(units: list[list[Node]], modules: Mapping[str, nn.Module], taints: Taints) -> Family:
    order = {name: index for index, name in enumerate(modules)}
    producers = sorted(
        {n for n, side, _ in units[0] if side == "out" and is_weighted(modules[n])},
        key=order.__getitem__,
    )
    first = producers[0]
    units = sorted(units, key=lambda unit: min(c for n, s, c in unit if (n, s) == (first, "out")))
    places: dict[tuple[str, Side], list[tuple[int, int]]] = defaultdict(list)
    for root, unit in enumerate(units):
        for layer, side, channel in unit:
            if side == "out" or not is_depthwise(modules[layer]):  # its sides are one
                places[layer, side].append((channel, root))
    members = [
        GroupMember(
            layer=layer,
            side=side,
            local=np.array([channel for channel, _ in sorted(found)], dtype=np.int64),
            root=np.array([root for _, root in sorted(found)], dtype=np.int64),
        )
        for (layer, side), found in sorted(places.items(), key=lambda item: order[item[0][0]])
    ]
    group = ChannelGroup(
        name=first,
        n_channels=len(units),
        members=tuple(members),
        block=len(places[first, "out"]) // len(units),
    )
    found_taints = set().union(*(taints.get(node, set()) for unit in units for node in unit))
    reason = _why_not(group, modules, sorted(found_taints))
    return Family(group=group, producers=tuple(producers), reason=reason)


def _why_not(
    group: ChannelGroup, modules: Mapping[str, nn.Module], taints: list[tuple[str, str]]
) -> str:
    for kind, layer in taints:
        if kind == "tied":
            return f"the parameters of '{layer}' are tied to another layer's"
    for member in group.members:
        if member.side == "out" and getattr(modules[member.layer], "proj_size", None):
            return f"'{member.layer}' projects its hidden units (proj_size)"
    if ("output", "") in taints or all(member.side == "out" for member in group.members):
        return NO_CONSUMER
    if group.n_channels > 1:
        return ""
    if group.block == 1:
        return "it has a single channel"
    mixers = [layer for kind, layer in taints if kind == "mixer"]
    mixers += [m.layer for m in group.members if isinstance(modules[m.layer], nn.GroupNorm)]
    if mixers:
        return f"{type(modules[mixers[0]]).__name__} '{mixers[0]}' mixes its channels"
    return "its channels depend on each other, so none of them can go alone"
