"""Channel groups as torch-pruning's dependency graph sees them (Fang et al. 2023), unproved."""

import contextlib
import copy
import functools
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch_pruning as tp
from torch import nn
from torch_pruning.dependency import graph as graph_module

from autocompress.analysis.channel_group import ChannelGroup, GroupMember
from autocompress.analysis.slots import Convolution
from autocompress.tasks.base import Inputs

_MAX_COUPLINGS = 1000
_COUPLINGS_PER_NODE = 4
_CUTTABLE = (
    Convolution,
    nn.Linear,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.PReLU,
)


class _BoundedGroup(tp.Group):  # type: ignore[misc]  # the package has no types
    """A group that refuses to grow beyond a limit."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def add_dep(self, dep: Any, idxs: Any) -> None:
        if len(self) >= self._limit:
            msg = f"a channel group has more than {self._limit} couplings"
            raise ValueError(msg)
        super().add_dep(dep, idxs)


@contextlib.contextmanager
def _bounded_groups(limit: int) -> Iterator[None]:
    """Let torch-pruning give up a group that has more couplings than that.

    A new group compares each coupling with all before, and rotary embeddings of grouped queries,
    which take halves apart and put them together, give it new ones for ever.
    """
    plain = graph_module.Group
    graph_module.Group = functools.partial(_BoundedGroup, limit)
    try:
        yield
    finally:
        graph_module.Group = plain


def trace_groups(model: nn.Module, example_inputs: Inputs) -> list[tuple[ChannelGroup, str]]:
    """Trace a model and read its groups off the graph.

    Args:
        model: Not modified.
        example_inputs: Inputs the model runs on.

    Returns:
        Each group, and why it is known to be wrong; empty if it has to be tried.

    Raises:
        Exception: Of many types, where the model cannot be traced.
    """
    traced = copy.deepcopy(model).eval()
    for parameter in traced.parameters():  # frozen parameters leave no trace
        parameter.requires_grad_(parameter.is_floating_point())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns about every free parameter; we refuse them
        graph = tp.DependencyGraph().build_dependency(traced, example_inputs)
        names = {module: name for name, module in traced.named_modules()}
        owners = Counter(id(p) for m in traced.modules() for p in m.parameters(recurse=False))
        tied = {names[m] for m in names if any(owners[id(p)] > 1 for p in m.parameters(False))}
        with _bounded_groups(max(_MAX_COUPLINGS, _COUPLINGS_PER_NODE * len(graph.module2node))):
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
    elif isinstance(module, Convolution) and 1 < module.groups < module.in_channels:
        yield f"'{name}' is a grouped convolution"
    if is_tied:
        yield f"the parameters of '{name}' are tied to another layer's"
