"""Channels that must be cut together, found by torch-pruning and proved by cutting them once.

torch-pruning's dependency graph is right on most networks and silently wrong on some, so no group
is trusted: each is cut on a copy, and the copy must compute what the model computes when every
consumer ignores the cut channels.
"""

import copy
import dataclasses
import warnings
from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import torch
import torch_pruning as tp
from numpy.typing import NDArray
from torch import nn

from autocompress.errors import first_line
from autocompress.tasks.base import Inputs

UNTRACED = "(all)"  # the name under which all groups of an untraceable model are refused
_CONVS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
_CUTTABLE = (*_CONVS, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.PReLU)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GroupMember:
    """One side of one layer that loses channels with the group.

    Attributes:
        layer: Qualified name.
        side: `out` if output channels are cut, `in` if input channels are.
        local: Channel indices in this layer, shape (n,).
        root: The group's channel each of them belongs to, shape (n,).
    """

    layer: str
    side: Literal["out", "in"]
    local: NDArray[np.int64]
    root: NDArray[np.int64]

    def indices_of(self, channels: NDArray[np.int64]) -> NDArray[np.int64]:
        """This layer's indices that fall when the group's `channels` do, sorted."""
        return np.sort(self.local[np.isin(self.root, channels)])


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChannelGroup:
    """Channels that are cut together.

    Attributes:
        name: Qualified name of the first layer that produces them.
        n_channels: How many there are.
        members: Everything that shrinks with them.
    """

    name: str
    n_channels: int
    members: tuple[GroupMember, ...]


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
    try:
        found = _trace(model, example_inputs)
    except Exception as error:  # noqa: BLE001 - torch-pruning raises many types when it cannot trace
        return (), {UNTRACED: f"the model's channels cannot be traced: {first_line(error)}"}
    order = {name: i for i, (name, _) in enumerate(model.named_modules())}
    groups: list[ChannelGroup] = []
    refused: dict[str, str] = {}
    for group, reason in sorted(found, key=lambda item: order[item[0].name]):
        reason = reason or _why_not_exact(model, group, example_inputs)
        if reason:
            refused[group.name] = reason
        else:
            groups.append(group)
    return tuple(groups), refused


def cut_channels_(model: nn.Module, cuts: Iterable[tuple[ChannelGroup, NDArray[np.int64]]]) -> None:
    """Remove channels of groups from a model, in place.

    The layers are cut by torch-pruning's functions; which indices fall in which layer was recorded
    when the groups were found, so no graph is built. Several groups can end in one layer (after a
    concatenation), and a cut shifts what lies behind it: each layer is cut once, by all groups.

    Args:
        model: A copy of the model the groups were found in, not cut before; changed.
        cuts: Each group at most once, with the channels to remove: fewer than all, shape (n,).
    """
    modules = dict(model.named_modules())
    doomed: dict[tuple[str, str], set[int]] = {}
    for group, channels in cuts:
        for member in group.members:
            indices = doomed.setdefault((member.layer, member.side), set())
            indices.update(member.indices_of(channels).tolist())
    for (layer, side), indices in doomed.items():
        module = modules[layer]
        pruner = tp.pruner.function.PrunerBox[tp.ops.module2type(module)]
        cut = pruner.prune_out_channels if side == "out" else pruner.prune_in_channels
        cut(module, sorted(indices))


def _trace(model: nn.Module, example_inputs: Inputs) -> list[tuple[ChannelGroup, str]]:
    traced = copy.deepcopy(model).eval()
    for parameter in traced.parameters():  # frozen parameters leave no trace
        parameter.requires_grad_(parameter.is_floating_point())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns about every free parameter; we refuse them
        graph = tp.DependencyGraph().build_dependency(traced, example_inputs)
        names = {module: name for name, module in traced.named_modules()}
        owners = Counter(id(p) for m in traced.modules() for p in m.parameters(recurse=False))
        tied = {names[m] for m in names if any(owners[id(p)] > 1 for p in m.parameters(False))}
        return [_convert(group, names, tied) for group in graph.get_all_groups()]


def _convert(group: Any, names: dict[nn.Module, str], tied: set[str]) -> tuple[ChannelGroup, str]:
    members: list[GroupMember] = []
    reasons: list[str] = []
    for item in group.items:
        target = item.dep.target.module
        if isinstance(target, nn.Parameter):
            reasons.append("it runs through a parameter outside of any layer")
        if target not in names:
            continue
        handler = item.dep.handler.__name__
        member = GroupMember(
            layer=names[target],
            side="in" if "in_channels" in handler else "out",
            local=np.array(item.idxs, dtype=np.int64),
            root=np.array(item.root_idxs, dtype=np.int64),
        )
        members.append(member)
        reasons += _why_not_cuttable(target, member.layer, member.layer in tied)
    root = names[group[0].dep.target.module]
    producers = [m.layer for m in members if m.side == "out"]
    order = {name: i for i, name in enumerate(names.values())}
    first = min(producers or [root], key=order.__getitem__)
    n_channels = len(group[0].idxs)
    if n_channels < 2:
        reasons.append("it has a single channel")
    return ChannelGroup(name=first, n_channels=n_channels, members=tuple(members)), (
        "; ".join(dict.fromkeys(reasons))
    )


def _why_not_cuttable(module: nn.Module, name: str, is_tied: bool) -> Iterable[str]:
    if not isinstance(module, _CUTTABLE):
        yield f"{type(module).__name__} '{name}' cannot be cut exactly"
    elif isinstance(module, _CONVS) and 1 < module.groups < module.in_channels:
        yield f"'{name}' is a grouped convolution"
    if is_tied:
        yield f"the parameters of '{name}' are tied to another layer's"


def _why_not_exact(model: nn.Module, group: ChannelGroup, inputs: Inputs) -> str:
    """Cut every other channel on a copy; compare with the model whose consumers ignore them."""
    channels = np.arange(0, group.n_channels, 2, dtype=np.int64)[: max(1, group.n_channels // 2)]
    reference, pruned = copy.deepcopy(model).eval(), copy.deepcopy(model).eval()
    try:
        if not _ignore_channels_(reference, group, channels):
            return "no layer consumes its channels: they are the model's output"
        cut_channels_(pruned, [(group, channels)])
        with torch.no_grad():
            expected, actual = reference(*inputs), pruned(*inputs)
    except Exception as error:  # noqa: BLE001 - a wrong cut surfaces as any exception of a forward
        return f"the cut model does not run: {first_line(error)}"
    for want, got in zip(_tensors(expected), _tensors(actual), strict=True):
        if want.shape != got.shape:
            return (
                f"cutting it changes the output's shape {tuple(want.shape)} to {tuple(got.shape)}"
            )
        scale = float(want.abs().max()) + 1e-12
        if not torch.allclose(want, got, rtol=0.0, atol=1e-4 * scale):
            error_share = float((want - got).abs().max()) / scale
            return f"the cut model differs from the masked one by {error_share:.1%}"
    return ""


def _ignore_channels_(model: nn.Module, group: ChannelGroup, channels: NDArray[np.int64]) -> bool:
    """Zero the weights that read `channels`; returns whether there were any."""
    modules = dict(model.named_modules())
    has_consumer = False
    for member in group.members:
        module = modules[member.layer]
        if member.side == "out" or not isinstance(module, (*_CONVS, nn.Linear)):
            continue
        has_consumer = True
        is_transposed = isinstance(module, _CONVS) and module.transposed
        dim = 0 if is_transposed else 1
        with torch.no_grad():
            module.weight.index_fill_(dim, torch.from_numpy(member.indices_of(channels)), 0.0)
    return has_consumer


def _tensors(output: object) -> list[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        return [output] if output.is_floating_point() else []
    if isinstance(output, dict):
        output = list(output.values())
    if isinstance(output, list | tuple):
        return [tensor for part in output for tensor in _tensors(part)]
    return []
