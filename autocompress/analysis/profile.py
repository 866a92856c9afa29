"""Facts about a model: its layers, what each costs, and which techniques each can take."""

import copy
import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from autocompress.analysis.channel_groups import ChannelGroup, find_channel_groups
from autocompress.analysis.refusals import FROZEN, LayerKind, layer_kind, refusals_of
from autocompress.analysis.residual_blocks import find_residual_blocks
from autocompress.tasks.base import Inputs
from autocompress.tasks.frozen import is_frozen


def count_macs(model: nn.Module, example_inputs: Inputs) -> dict[str, int]:
    """Count the MACs of one example per module.

    Runs on the `meta` device: there torch's counter sees attention and fused encoder layers, which
    it misses on the CPU. Falls back to the CPU where a model's control flow needs real values.

    Args:
        model: Not modified.
        example_inputs: Inputs of shape (N, ...), N >= 1; only the first example is used.

    Returns:
        Qualified module name -> MACs of everything inside it; `""` is the whole model.
    """
    single = tuple(tensor[:1] for tensor in example_inputs)
    try:
        on_meta = tuple(tensor.to("meta") for tensor in single)
        flops = _count_flops(copy.deepcopy(model).to("meta"), on_meta)
    except (RuntimeError, NotImplementedError, TypeError, ValueError):
        flops = _count_flops(copy.deepcopy(model), single)
    root = type(model).__name__
    return {_qualified(name, root): count // 2 for name, count in flops.items()}


def _count_flops(model: nn.Module, inputs: Inputs) -> dict[str, int]:
    counter = FlopCounterMode(display=False)
    model.requires_grad_(False)  # the counter stumbles over a parameter that a layer is called on
    with torch.no_grad(), counter:
        model.eval()(*inputs)
    return {name: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}


def _qualified(name: str, root: str) -> str:
    return "" if name in ("Global", root) else name.removeprefix(f"{root}.")


_TIEABLE = (nn.Embedding, nn.Linear)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LayerInfo:
    """One module that owns parameters itself.

    Attributes:
        name: Qualified name.
        kind: What it is.
        weight_shape: Shape of its `weight`; empty if it has none of that name.
        n_params: Parameters of this module alone.
        macs: Multiply-accumulates of one example.
        n_calls: How often one forward pass calls it.
        refusals: Technique -> why this layer cannot take it; absent means it can.
        tied_to: First layer that owns the same weight, where this one is an embedding or a linear
            layer that owns it as well; empty if its weight is its own.
    """

    name: str
    kind: LayerKind
    weight_shape: tuple[int, ...]
    n_params: int
    macs: int
    n_calls: int
    refusals: Mapping[str, str]
    tied_to: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModelProfile:
    """Everything the search needs to know about a model, without its weights.

    Attributes:
        layers: In the order of `named_modules`.
        groups: Channel groups that can be pruned exactly.
        refused_groups: Name of a group that gets no knob -> why.
        n_params: Distinct parameters, shared ones once.
        macs: Multiply-accumulates of one example.
        blocks: Residual blocks that can be left out.
        refused_blocks: Name of a block that adds something to its input and still cannot be -> why.
    """

    layers: tuple[LayerInfo, ...]
    groups: tuple[ChannelGroup, ...]
    refused_groups: Mapping[str, str]
    n_params: int
    macs: int
    blocks: tuple[str, ...] = ()
    refused_blocks: Mapping[str, str] = dataclasses.field(default_factory=dict)


def profile_model(model: nn.Module, example_inputs: Inputs) -> ModelProfile:
    """Look at a model once: layers, costs, channel groups, blocks, and what each can take.

    Args:
        model: Not modified.
        example_inputs: Inputs the model runs on, each of shape (N, ...) with N >= 2.
    """
    calls = _count_calls(model, example_inputs)
    macs = count_macs(model, example_inputs)
    owners = _owners(model)
    layers = []
    for name, module in model.named_modules():
        own = list(module.parameters(recurse=False))
        if not own:
            continue
        weight = getattr(module, "weight", None)
        ties = _ties(name, module, owners)
        layers.append(
            LayerInfo(
                name=name,
                kind=layer_kind(module),
                weight_shape=tuple(weight.shape) if isinstance(weight, torch.Tensor) else (),
                n_params=sum(p.numel() for p in own),
                macs=macs.get(name, 0),
                n_calls=calls[name],
                refusals=refusals_of(
                    module,
                    calls[name],
                    tied_to=ties.tied_to,
                    is_tied=ties.is_tied,
                    is_tie_source=ties.is_tie_source,
                ),
                tied_to=ties.tied_to,
            )
        )
    groups, refused = find_channel_groups(model, example_inputs)
    blocks, refused_blocks = find_residual_blocks(model, example_inputs)
    frozen = {name for name, module in model.named_modules() if is_frozen(module)}
    refused |= {g.name: FROZEN for g in groups if any(m.layer in frozen for m in g.members)}
    refused_blocks |= {b: FROZEN for b in blocks if any(_is_within(name, b) for name in frozen)}
    return ModelProfile(
        layers=tuple(layers),
        groups=tuple(group for group in groups if group.name not in refused),
        refused_groups=refused,
        n_params=sum(p.numel() for p in model.parameters()),
        macs=macs.get("", 0),
        blocks=tuple(block for block in blocks if block not in refused_blocks),
        refused_blocks=refused_blocks,
    )


def _is_within(name: str, block: str) -> bool:
    return name == block or name.startswith(f"{block}.")


def _owners(model: nn.Module) -> dict[int, list[tuple[str, nn.Module, str]]]:
    """Id of a parameter -> every (layer's name, layer, parameter's name) that owns it."""
    owners: dict[int, list[tuple[str, nn.Module, str]]] = {}
    for name, module in model.named_modules():
        for own, parameter in module.named_parameters(recurse=False):
            owners.setdefault(id(parameter), []).append((name, module, own))
    return owners


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Ties:
    """How a layer's parameters are tied; see `refusals.refusals_of`."""

    tied_to: str = ""
    is_tied: bool = False
    is_tie_source: bool = False


def _ties(
    name: str, module: nn.Module, owners: Mapping[int, list[tuple[str, nn.Module, str]]]
) -> _Ties:
    """Ties between whole weights of embeddings and linear layers are kept; others are not."""
    ties = _Ties()
    for parameter in module.parameters(recurse=False):
        tied = owners[id(parameter)]
        if len(tied) < 2:
            continue
        if not all(own == "weight" and isinstance(m, _TIEABLE) for _, m, own in tied):
            ties = dataclasses.replace(ties, is_tied=True)
        elif tied[0][0] == name:
            ties = dataclasses.replace(ties, is_tie_source=True)
        else:
            ties = dataclasses.replace(ties, tied_to=tied[0][0])
    return ties


def _count_calls(model: nn.Module, example_inputs: Inputs) -> Counter[str]:
    """Count forward passes per module on a copy.

    torch's fused encoder kernel, which reads the weights of layers past their forward, is off
    meanwhile, as it is for candidates; see `pipeline.apply_plan`.
    """
    calls: Counter[str] = Counter()

    def counting(name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            return forward(*args, **kwargs)

        return counted

    copied = copy.deepcopy(model).eval()
    for name, module in copied.named_modules():
        object.__setattr__(module, "forward", counting(name, module.forward))
    is_fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            copied(*example_inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(is_fused)
    return calls
