"""Facts about a model: its layers, what each costs, and which techniques each can take."""

import copy
import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import nn

from autocompress.analysis.channel_groups import ChannelGroup, find_channel_groups
from autocompress.analysis.macs import count_macs
from autocompress.tasks.base import Inputs

LayerKind = Literal[
    "conv",
    "pointwise",
    "depthwise",
    "grouped_conv",
    "linear",
    "transposed_conv",
    "embedding",
    "recurrent",
    "attention",
    "norm",
    "other",
]
CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


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
    """

    name: str
    kind: LayerKind
    weight_shape: tuple[int, ...]
    n_params: int
    macs: int
    n_calls: int
    refusals: Mapping[str, str]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModelProfile:
    """Everything the search needs to know about a model, without its weights.

    Attributes:
        layers: In the order of `named_modules`.
        groups: Channel groups that can be pruned exactly.
        refused_groups: Name of a group that gets no knob -> why.
        n_params: Distinct parameters, shared ones once.
        macs: Multiply-accumulates of one example.
    """

    layers: tuple[LayerInfo, ...]
    groups: tuple[ChannelGroup, ...]
    refused_groups: Mapping[str, str]
    n_params: int
    macs: int


def profile_model(model: nn.Module, example_inputs: Inputs) -> ModelProfile:
    """Look at a model once: layers, costs, channel groups, and what each can take.

    Args:
        model: Not modified.
        example_inputs: Inputs the model runs on, each of shape (N, ...) with N >= 2.
    """
    calls = _count_calls(model, example_inputs)
    macs = count_macs(model, example_inputs)
    owners = Counter(id(p) for m in model.modules() for p in m.parameters(recurse=False))
    layers = []
    for name, module in model.named_modules():
        own = list(module.parameters(recurse=False))
        if not own:
            continue
        weight = getattr(module, "weight", None)
        layers.append(
            LayerInfo(
                name=name,
                kind=layer_kind(module),
                weight_shape=tuple(weight.shape) if isinstance(weight, torch.Tensor) else (),
                n_params=sum(p.numel() for p in own),
                macs=macs.get(name, 0),
                n_calls=calls[name],
                refusals=_refusals(module, calls[name], any(owners[id(p)] > 1 for p in own)),
            )
        )
    groups, refused = find_channel_groups(model, example_inputs)
    return ModelProfile(
        layers=tuple(layers),
        groups=groups,
        refused_groups=refused,
        n_params=sum(p.numel() for p in model.parameters()),
        macs=macs.get("", 0),
    )


def layer_kind(module: nn.Module) -> LayerKind:
    """Name the kind of a layer, as search-space files use it."""
    if isinstance(module, CONVS):
        if module.groups > 1:
            return "depthwise" if module.groups == module.in_channels else "grouped_conv"
        return "pointwise" if set(module.kernel_size) == {1} else "conv"
    table: tuple[tuple[tuple[type, ...], LayerKind], ...] = (
        ((nn.Linear,), "linear"),
        (_TRANSPOSED, "transposed_conv"),
        ((nn.Embedding, nn.EmbeddingBag), "embedding"),
        ((nn.RNNBase, nn.RNNCellBase), "recurrent"),
        ((nn.MultiheadAttention,), "attention"),
        (_NORMS, "norm"),
    )
    for types, kind in table:
        if isinstance(module, types):
            return kind
    return "other"


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


def _refusals(module: nn.Module, n_calls: int, is_tied: bool) -> dict[str, str]:
    quantize = _why_not_quantize(module, n_calls, is_tied)
    factorize = quantize or _why_not_factorize(module)
    refusals = {"weight_bits": quantize, "activation_bits": quantize, "rank_ratio": factorize}
    return {technique: reason for technique, reason in refusals.items() if reason}


def _why_not_quantize(module: nn.Module, n_calls: int, is_tied: bool) -> str:
    supported = (*CONVS, nn.Linear)
    if not isinstance(module, supported):
        return f"{type(module).__name__} layers are not quantized or factorized yet"
    if nn.utils.parametrize.is_parametrized(module):
        return "its weight is parametrized (remove parametrizations first)"
    if type(module) not in supported:
        return f"{type(module).__name__} is a subclass of its own, whose forward is unknown"
    if n_calls == 0:
        return "it is not called on the example input, or its weight is read past its forward"
    if is_tied:
        return "its parameters are tied to another layer's"
    if not isinstance(module._parameters.get("weight"), nn.Parameter):
        return "its weight is computed from other parameters (remove weight or spectral norm first)"
    return ""


def _why_not_factorize(module: nn.Module) -> str:
    if isinstance(module, CONVS):
        if module.groups > 1:
            return "grouped and depthwise convolutions have no low-rank form here"
        if module.padding_mode != "zeros":
            return f"padding_mode={module.padding_mode!r} is not supported by the factors"
        if isinstance(module, nn.Conv3d) and set(module.kernel_size) != {1}:
            return "Tucker-2 is implemented for 1-D and 2-D kernels"
    return ""
