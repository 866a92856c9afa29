"""Put the layers of a model on grids, and freeze them into what is stored."""

import copy
import dataclasses
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from autocompress.analysis.refusals import layer_kind, why_no_input_grid
from autocompress.compress.codes import ActivationRange, StoredWeight
from autocompress.compress.compressed_layers import (
    channel_axis,
    is_compressed,
    mask_of,
    quantizer_of,
    restore_layer_,
    set_mask_,
    set_quantizer_,
    weight_parameters,
)
from autocompress.compress.input_quantizer import InputQuantizer
from autocompress.compress.quantizers.base import WeightQuantizer
from autocompress.compress.quantizers.registry import (
    find_quantizer,
    parse_granularity,
    why_not_quantize,
)
from autocompress.plan import LayerPlan
from autocompress.technique import FULL_BITS


def quantize_(model: nn.Module, name: str, plan: LayerPlan) -> tuple[str, ...]:
    """Put a layer, or all factors it was split into, on grids, in place.

    A weight that several layers own gets one quantizer, which all of them compute with; the first
    that is quantized decides. Masks stay. Input grids start out observing: run calibration data
    through the model, then `settle` them (`train.recalibrate` does).

    Args:
        model: Changed.
        name: Qualified name of a layer in `COMPRESSED`, or of the factors in its place.
        plan: What to do; of interest are `weight_bits`, `quantizer`, `granularity`,
            `activation_bits` and `rate_price`, which rounding reads off the quantizer.

    Returns:
        What was done otherwise than asked, or not at all, and why: one line each.
    """
    if not plan.is_quantized:
        return ()
    notes = []
    for path, layer in list(model.get_submodule(name).named_modules(prefix=name)):
        for parameter in weight_parameters(layer):
            notes.append(_quantize_weight_(model, path, layer, parameter, plan))
        if weight_parameters(layer) and plan.activation_bits < FULL_BITS:
            notes.append(_quantize_input_(path, layer, plan))
    return tuple(note for note in notes if note)


def requantize_(model: nn.Module, layers: Mapping[str, LayerPlan]) -> None:
    """Put quantized weights on grids of other bits, in place.

    Grids start anew from the weights behind the old ones, which training has moved; activation
    grids and masks stay. Of several layers that own a weight the first decides, as it did for the
    old grid. A weight that is not quantized, or has its bits already, is left alone.

    Args:
        model: Changed; `quantize_` was called for its layers in this order, with the same methods.
        layers: Layer name -> what its weights shall be. Layers that the model has lost, with the
            block they were in, are passed over.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    decided: set[int] = set()
    for name, plan in layers.items():
        if name not in modules or not plan.is_quantized:
            continue
        source = modules.get(plan.shared_with) if plan.shared_with else None
        decided_by_source = set() if source is None else {id(p) for p in source.parameters()}
        for path, layer in list(modules[name].named_modules(prefix=name)):
            for parameter in weight_parameters(layer):
                weight = layer.get_parameter(parameter)
                if id(weight) not in decided | decided_by_source:
                    decided.add(id(weight))
                    _requantize_weight_(model, path, layer, parameter, plan)


def _requantize_weight_(
    model: nn.Module, path: str, layer: nn.Module, parameter: str, plan: LayerPlan
) -> None:
    existing = quantizer_of(layer, parameter)
    if existing is None or existing.bits == plan.weight_bits:
        return
    for owner, own_name in list(_owners(model, layer.get_parameter(parameter))):
        owner._modules.pop(f"{own_name}_quantizer")
    _quantize_weight_(model, path, layer, parameter, plan)


def _quantize_weight_(
    model: nn.Module, path: str, layer: nn.Module, parameter: str, plan: LayerPlan
) -> str:
    """Quantize one parameter wherever it is used; why otherwise than asked, or ""."""
    owners = list(_owners(model, layer.get_parameter(parameter)))
    where = path if parameter == "weight" else f"{path}.{parameter}"
    stranger = next((o for o, p in owners if p not in weight_parameters(o)), None)
    if stranger is not None:
        return (
            f"weight_bits={plan.weight_bits:g} of '{where}' skipped: "
            f"a {type(stranger).__name__}, which cannot take it, owns the same weight"
        )
    existing = quantizer_of(layer, parameter)
    if existing is not None:
        wanted = (plan.weight_bits, parse_granularity(plan.granularity))
        is_wanted = (existing.bits, existing.blocks.granularity) == wanted
        if is_wanted and existing.method == plan.quantizer:
            if existing.rate_price == plan.rate_price:
                return ""
            return (
                f"rate_price={plan.rate_price:g} of '{where}' skipped: its weight is that of a "
                f"layer whose price is {existing.rate_price:g}"
            )
        return (
            f"weight_bits={plan.weight_bits:g} of '{where}' skipped: its weight is that of a "
            f"layer that is quantized to {existing.bits:g} bits already"
        )
    mask = mask_of(layer, parameter)
    applied, note = _applicable(layer, parameter, plan, where, has_mask=mask is not None)
    quantizer = find_quantizer(applied.quantizer).make(
        layer.get_parameter(parameter),
        applied.weight_bits,
        parse_granularity(applied.granularity),
        channel_axis(layer),
        mask,
    )
    quantizer.method = applied.quantizer
    quantizer.rate_price = applied.rate_price
    for owner, name in owners:
        if mask is not None:
            set_mask_(owner, mask, name)
        set_quantizer_(owner, quantizer, name)
    return note


def _applicable(
    layer: nn.Module, parameter: str, plan: LayerPlan, where: str, *, has_mask: bool
) -> tuple[LayerPlan, str]:
    """The plan if the weight can take it, else a uniform one and why."""
    shape = tuple(layer.get_parameter(parameter).shape)
    bits, kind = plan.weight_bits, layer_kind(layer)
    why = why_not_quantize(plan.quantizer, plan.granularity, bits, kind, shape)
    if not why and has_mask and not find_quantizer(plan.quantizer).takes_masks:
        why = f"{plan.quantizer} cannot keep single weights at 0"
    if not why:
        return plan, ""
    fallback = dataclasses.replace(plan, quantizer="uniform", granularity="channel")
    asked = f"quantizer={plan.quantizer}, granularity={plan.granularity}"
    return fallback, f"{asked} of '{where}' skipped: {why}; it is uniform per channel instead"


def _owners(model: nn.Module, weight: Tensor) -> Iterator[tuple[nn.Module, str]]:
    """Every layer that has this very parameter, and the name it has there."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            if parameter is weight:
                yield module, name


def _quantize_input_(path: str, layer: nn.Module, plan: LayerPlan) -> str:
    """Give a layer an input grid; why not, or ""."""
    quantizers = [quantizer_of(layer, name) for name in weight_parameters(layer)]
    kinds = why_no_input_grid(layer_kind(layer), is_lstm=isinstance(layer, nn.LSTM))
    if why := kinds or next(filter(None, map(_why_not_integer, quantizers)), ""):
        return f"activation_bits={plan.activation_bits} of '{path}' skipped: {why}"
    layer.add_module("input_quantizer", InputQuantizer())
    return ""


def _why_not_integer(quantizer: WeightQuantizer | None) -> str:
    """Why integer kernels cannot compute with a weight, which may not be as the plan says."""
    if quantizer is None:
        return "its weight stays float, and integer kernels need both operands"
    granularity = quantizer.blocks.granularity
    if find_quantizer(quantizer.method).has_integer_form(granularity, quantizer.bits):
        return ""
    return (
        "integer kernels need a weight of int8 codes and a scale per channel, and "
        f"{quantizer.method} in {quantizer.bits:g} bits per {granularity.kind} is none"
    )


def freeze_(model: nn.Module) -> tuple[dict[str, StoredWeight], dict[str, ActivationRange]]:
    """Turn compressed layers back into plain ones that hold what is stored, in place.

    Quantized weights become exactly what their stored form stands for; weights with only a mask
    are multiplied by it.

    Args:
        model: Changed: its compressed layers become plain float layers.

    Returns:
        What each quantized weight is stored as, by layer name, or by parameter name where a
        parameter is not called `weight`; layers that own the same weight share one entry's value.
        And layer name -> grid of its input.
    """
    weights: dict[str, StoredWeight] = {}
    activations: dict[str, ActivationRange] = {}
    stored_by_id: dict[int, StoredWeight] = {}
    for name, layer in list(model.named_modules()):
        if not is_compressed(layer):
            continue
        for parameter in weight_parameters(layer):
            stored = _freeze_weight_(layer, parameter, stored_by_id)
            if stored is not None:
                weights[name if parameter == "weight" else f"{name}.{parameter}"] = stored
        grid = layer._modules.get("input_quantizer")
        if isinstance(grid, InputQuantizer):
            activations[name] = grid.freeze()
        restore_layer_(layer)
    return weights, activations


def _freeze_weight_(
    layer: nn.Module, parameter: str, stored_by_id: dict[int, StoredWeight]
) -> StoredWeight | None:
    """Write what is stored into the parameter; a parameter seen before is left as it is."""
    weight = layer.get_parameter(parameter)
    if id(weight) in stored_by_id:
        return stored_by_id[id(weight)]
    mask, quantizer = mask_of(layer, parameter), quantizer_of(layer, parameter)
    with torch.no_grad():
        if quantizer is None:
            if mask is not None:
                weight.mul_(mask)
            return None
        stored = stored_by_id[id(weight)] = quantizer.freeze(weight, mask)
        weight.copy_(torch.from_numpy(stored.dequantize()))
    return stored


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Deployable:
    """A candidate as runtimes see it: a plain float model and what is stored of its weights.

    Attributes:
        model: In eval mode; quantized layers hold exactly dequantized weights.
        weights: Layer name -> what its weight is stored as; of a parameter not called `weight`
            (recurrent layers) the parameter's name.
        activations: Layer name -> unsigned 8-bit grid of its input, where it runs in integers.
    """

    model: nn.Module
    weights: dict[str, StoredWeight]
    activations: dict[str, ActivationRange]


def make_deployable(model: nn.Module) -> Deployable:
    """Freeze a copy of a candidate into what runtimes and files need; `model` is not modified."""
    frozen = copy.deepcopy(model).eval()
    weights, activations = freeze_(frozen)
    return Deployable(model=frozen, weights=weights, activations=activations)
