"""Cross-layer weight sharing: one weight for several layers of one shape, each with its own bias.

As in ALBERT (Lan et al. 2020), for any pair of layers and from trained weights: sharing starts at
their mean, which is the one weight nearest to all of them in squared error.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from autocompress.analysis.profile import LayerInfo
from autocompress.analysis.refusals import CONVS, LayerKind, layer_kind
from autocompress.errors import InputError

_SHAREABLE = (nn.Linear, *CONVS)
_KINDS: tuple[LayerKind, ...] = ("linear", "conv", "pointwise", "depthwise", "grouped_conv")


def mean_weight(weights: Iterable[Tensor]) -> Tensor:
    """The tensor nearest to all of some tensors of one shape: their mean, summed in float64."""
    stacked = torch.stack([weight.detach() for weight in weights])
    return stacked.double().mean(dim=0).to(stacked.dtype)


def share_weights_(model: nn.Module, pairs: Mapping[str, str]) -> dict[str, str]:
    """Give layers one weight together, in place; their biases stay their own.

    All layers that name one source, and the source, get one Parameter: the source's, set to the
    mean of their weights, each counted once.

    Args:
        model: Changed.
        pairs: Qualified layer name -> the layer whose weight it shares.

    Returns:
        Layer name -> why it keeps a weight of its own, or "" if it shares; one entry per pair.

    Raises:
        InputError: If the model has no layer of a name.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    for name in (*pairs, *pairs.values()):
        if name not in modules:
            raise InputError(
                f"Layers that share a weight must exist, but the model has no {name!r}."
            )
    reasons = {name: _why_not(modules, pairs, name) for name in pairs}
    for source in dict.fromkeys(pairs.values()):
        names = [name for name in pairs if pairs[name] == source and not reasons[name]]
        if names:
            _tie_(modules[source], [modules[name] for name in names])
    return {
        name: f"shared_with='{pairs[name]}' of '{name}' skipped: {reason}" if reason else ""
        for name, reason in reasons.items()
    }


def sharing_partners(layers: Iterable[LayerInfo]) -> dict[str, str]:
    """Which layer can take the weight of which earlier one.

    Args:
        layers: In the order of the model.

    Returns:
        Layer name -> the first layer before it of the same kind and weight shape; layers without
        one are missing. A layer that is named as partner has none itself.
    """
    first: dict[tuple[LayerKind, tuple[int, ...]], str] = {}
    partners: dict[str, str] = {}
    for layer in layers:
        if layer.kind not in _KINDS or not layer.weight_shape:
            continue
        if not layer.refusals.keys().isdisjoint(("shared_with", "weight_bits")):
            continue
        source = first.setdefault((layer.kind, layer.weight_shape), layer.name)
        if source != layer.name:
            partners[layer.name] = source
    return partners


def _why_not(modules: Mapping[str, nn.Module], pairs: Mapping[str, str], name: str) -> str:
    source = pairs[name]
    layer, other = modules[name], modules[source]
    if layer is other:
        return "they are the same layer"
    if source in pairs:
        return f"'{source}' itself shares the weight of '{pairs[source]}'"
    for path, module in ((name, layer), (source, other)):
        if type(module) not in _SHAREABLE:
            return f"'{path}' is a {type(module).__name__}, not a plain Linear or convolution"
        if "weight" not in module._parameters:
            return f"the weight of '{path}' is computed from other parameters"
        if tied := _tied_to(modules, module):
            return f"the weight of '{path}' is tied to '{tied}' already"
    kind, other_kind = layer_kind(layer), layer_kind(other)
    if kind != other_kind:
        return f"one is {kind}, the other {other_kind}"
    shape, other_shape = tuple(_weight_of(layer).shape), tuple(_weight_of(other).shape)
    if shape != other_shape:
        return f"its weight is {shape}, the other {other_shape}"
    return ""


def _tied_to(modules: Mapping[str, nn.Module], layer: nn.Module) -> str:
    """Another module that owns the weight of a layer; empty if none does."""
    for name, module in modules.items():
        if module is not layer and any(p is layer.weight for p in module._parameters.values()):
            return name
    return ""


def _tie_(source: nn.Module, layers: Iterable[nn.Module]) -> None:
    sharing = list(dict.fromkeys((source, *layers)))  # a layer under several names counts once
    weight = source.weight
    assert isinstance(weight, nn.Parameter)
    with torch.no_grad():
        weight.copy_(mean_weight(_weight_of(layer) for layer in sharing))
    for layer in sharing:
        layer.weight = weight


def _weight_of(layer: nn.Module) -> Tensor:
    assert isinstance(layer.weight, Tensor)
    return layer.weight
