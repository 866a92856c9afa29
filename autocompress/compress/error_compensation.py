"""Rounding of a model's layers that makes up for its own errors, without training.

By GPTQ (Frantar et al. 2022); with a rate penalty, by its rate-distortion form (Conzelmann &
Bamler 2025, "Reducing storage of pretrained neural networks by rate-constrained quantization and
entropy coding").

Dimension key: `G` groups of a convolution, `O` outputs of a group, `n` inputs of one output, `B`
blocks of a weight that share a grid, `K` values of a grid.
"""

import copy
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import torch
from torch import Tensor, nn

from autocompress.analysis.refusals import CONVS, layer_kind
from autocompress.compress.compensated_rounding import curvature_of
from autocompress.compress.compressed_layers import mask_of, quantizer_of, weight_parameters
from autocompress.compress.input_moments import (
    MOST_MOMENT_BYTES,
    input_second_moments,
    moment_bytes,
    why_no_moment,
)
from autocompress.compress.output_damage import OutputDamage, first_examples
from autocompress.compress.quantize import freeze_
from autocompress.compress.quantizers.base import WeightQuantizer
from autocompress.compress.quantizers.uniform import UniformQuantizer
from autocompress.compress.rate import nearest_codes, round_for_rate, step_for_price
from autocompress.tasks.base import Inputs
from autocompress.technique import BINARY_BITS

_MARGIN: Final = 4  # levels beyond the largest weight that rounding may use
_PASS_BYTES: Final = 2 * MOST_MOMENT_BYTES  # of all layers in one pass over the data


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Compensation:
    """What compensation achieved.

    Attributes:
        error_shares: Layer name -> its squared output error, as a share of that of rounding to
            nearest on the same grid; above 1 where bits were worth more.
        skipped: Quantized layers that are rounded to nearest instead, and why: one line each.
    """

    error_shares: Mapping[str, float]
    skipped: tuple[str, ...]


def compensate_(
    model: nn.Module,
    batches: Iterable[Inputs],
    names: Iterable[str] | None = None,
    *,
    only_priced: bool = False,
) -> Compensation:
    """Rewrite quantized weights so that their quantizers round them with compensation, in place.

    The inputs of all layers are those they have in the model as it is now, quantized, but with
    float activations. So re-estimate batch-norms before (rounding to nearest shifts what layers
    see), and after. Per output channel, rounding to nearest is kept where it is better, so that no
    layer's output error on these batches is above it.

    Where a quantizer has a `rate_price`, bits count as well, also where channels are compared:
    small is the damage to the model's outputs plus the price times the layer's bits, as an adaptive
    zero-order coder counts them, over the number of weights of all linear layers and convolutions.
    Each layer's damage is measured (`OutputDamage`), so a price means the same in all. Uniform
    grids that are not binary become coarser where the price asks for it, and all channels of a
    layer then share one step; so the bits of a plan are the most a weight can take.

    Left alone are weights that several layers own, transposed convolutions, embeddings and
    recurrent layers, quantizers whose weights cannot choose their values, and layers of so many
    inputs that their statistics would take more than `MOST_MOMENT_BYTES`.

    Args:
        model: Changed: weights of quantized Linear and Conv layers, and with a price their steps;
            masked weights stay 0.
        batches: Calibration inputs, each of shape (N, ...). Kept in memory where they are needed
            more than once.
        names: Qualified names of layers to look at; None for all.
        only_priced: Whether to look only at layers whose quantizer has a price.

    Returns:
        What it achieved, and which quantized layers it left alone.
    """
    wanted = None if names is None else set(names)
    quantized = {
        name: layer
        for name, layer in model.named_modules()
        if (wanted is None or name in wanted) and _is_quantized(layer)
    }
    if only_priced:
        quantized = {name: layer for name, layer in quantized.items() if _price_of(layer) > 0.0}
    reasons = {name: _why_not(model, layer) for name, layer in quantized.items()}
    usable = {name: layer for name, layer in quantized.items() if not reasons[name]}
    passes = _in_passes(usable)
    first: list[Inputs] = []
    if any(_price_of(layer) > 0.0 for layer in usable.values()):
        first, batches = first_examples(batches)
    if len(passes) > 1:
        batches = tuple(batches)
    frozen = _frozen(model) if passes else model
    prices = _Prices(model, first)
    shares = {}
    for names_at_once in passes:
        moments = input_second_moments(frozen, names_at_once, batches)
        for name in names_at_once:
            moment = moments.pop(name, None)
            reasons[name] = _why_unusable(moment)
            if moment is not None and not reasons[name]:
                moment = moment if moment.ndim == 3 else moment[None]  # (G, n, n)
                price = prices.of(name, usable[name], moment)
                shares[name] = _compensate_layer_(usable[name], moment, price)
    return Compensation(
        error_shares=shares,
        skipped=tuple(
            f"{_asked_of(quantized[name])} of '{name}' skipped: {reason}"
            for name, reason in reasons.items()
            if reason
        ),
    )


def has_rate_penalty(model: nn.Module) -> bool:
    """Whether bits are worth something in any layer that can be rounded for them."""
    return any(
        _is_quantized(layer) and _price_of(layer) > 0.0 and not _why_not(model, layer)
        for layer in model.modules()
    )


class _Prices:
    """What a bit is worth in each layer, in units of the layer's own squared output error.

    Args:
        model: As it is now; later changes do not count.
        batches: Calibration inputs; empty if no layer has a price.
    """

    def __init__(self, model: nn.Module, batches: Sequence[Inputs]) -> None:
        layers = (m for m in model.modules() if isinstance(m, (nn.Linear, *CONVS)))
        weights = {id(layer.weight): layer.weight for layer in layers}
        self._n_weights = sum(weight.numel() for weight in weights.values())
        self._damage = OutputDamage(model, batches) if batches else None

    def of(self, name: str, layer: nn.Module, moment: Tensor) -> float:
        """Rate penalty of a layer; 0 where its outputs are 0 anyway."""
        price = _price_of(layer)
        if price == 0.0 or self._damage is None:
            return 0.0
        damage = self._damage.per_error(name, moment)
        return 0.0 if damage is None else price / self._n_weights / damage


def _price_of(layer: nn.Module) -> float:
    """What a bit is worth in a layer, by the quantizers of its weights."""
    quantizers = (quantizer_of(layer, name) for name in weight_parameters(layer))
    return max((quantizer.rate_price for quantizer in quantizers if quantizer), default=0.0)


def _asked_of(layer: nn.Module) -> str:
    """What a layer that is left alone was asked to do, for a note."""
    price = _price_of(layer)
    return f"rate_price={price:g}" if price > 0.0 else "rounding=compensated"


def _is_quantized(layer: nn.Module) -> bool:
    return any(quantizer_of(layer, name) is not None for name in weight_parameters(layer))


def _why_not(model: nn.Module, layer: nn.Module) -> str:
    """Why a quantized layer has to be rounded to nearest; empty if it need not."""
    if not isinstance(layer, (nn.Linear, *CONVS)):
        return f"it is for linear layers and convolutions, not for {layer_kind(layer)} layers"
    owners = (w for module in model.modules() for w in module._parameters.values())
    if sum(weight is layer.weight for weight in owners) > 1:
        return "several layers own its weight, each with other inputs"
    quantizer = quantizer_of(layer)
    assert quantizer is not None
    if quantizer.levels() is None:
        return "its weights share values and cannot be rounded one by one"
    n_inputs, n_groups = _inputs_of(layer)
    return why_no_moment(n_inputs, "inputs", n_groups)


def _inputs_of(layer: nn.Module) -> tuple[int, int]:
    """Inputs of one output of a Linear or convolution, n, and groups, G."""
    return layer.get_parameter("weight")[0].numel(), getattr(layer, "groups", 1)


def _in_passes(layers: Mapping[str, nn.Module]) -> list[list[str]]:
    """Names of layers, in order, in parts whose statistics fit in memory together."""
    passes: list[list[str]] = []
    left = 0
    for name, layer in layers.items():
        n_bytes = moment_bytes(*_inputs_of(layer))
        if n_bytes > left:
            passes.append([])
            left = _PASS_BYTES
        passes[-1].append(name)
        left -= n_bytes
    return passes


def _why_unusable(moment: Tensor | None) -> str:
    if moment is None:
        return "no batch has reached the layer"
    return "" if bool(moment.isfinite().all()) else "its inputs are not all finite"


def _frozen(model: nn.Module) -> nn.Module:
    """A copy with plain layers that hold quantized weights, without activation grids."""
    frozen = copy.deepcopy(model)
    for module in frozen.modules():
        module._modules.pop("input_quantizer", None)
    freeze_(frozen)
    return frozen


def _compensate_layer_(layer: nn.Module, moment: Tensor, price: float) -> float:
    """Rewrite one layer's weight; its error over that of rounding to nearest."""
    weight, mask, quantizer = layer.get_parameter("weight"), mask_of(layer), quantizer_of(layer)
    assert quantizer is not None
    shape = (len(moment), len(weight) // len(moment), moment.shape[-1])  # (G, O, n)
    with torch.no_grad():
        if price > 0.0:
            _coarsen_(quantizer, step_for_price(price, curvature_of(moment)))
        target = weight if mask is None else weight * mask
        levels = _within_reach(_levels(quantizer, shape), target)
        kept = None if mask is None else mask.reshape(shape)
        rounded, lengths = round_for_rate(target.reshape(shape), moment, levels, price, kept=kept)
        compensated = rounded.reshape(weight.shape).to(weight.dtype)
        values = [quantizer(w, mask) for w in (weight, compensated)]
        nearest, better = (_output_error(value - target, moment, shape) for value in values)
        costs = [
            price * lengths[nearest_codes(value.reshape(shape), levels)].sum(-1).flatten()
            for value in values
        ]
        is_better = better + costs[1] < nearest + costs[0]  # (G·O,)
        error = float(torch.where(is_better, better, nearest).sum())
        is_written = is_better.reshape(-1, *[1] * (weight.ndim - 1))
        if mask is not None:
            is_written = is_written & mask
        weight.copy_(torch.where(is_written, compensated, weight))
    total = float(nearest.sum())
    return error / total if total > 0 else 1.0


def _coarsen_(quantizer: WeightQuantizer, steps: Tensor) -> None:
    """Widen the steps of a uniform grid to at least `steps`, one per group of outputs, (G,).

    Other grids are what they are: a codebook has no step, and a fixed-point step is a power of two.
    """
    if type(quantizer) is not UniformQuantizer or quantizer.bits == BINARY_BITS:
        return
    own = quantizer.step
    if len(own) % len(steps):  # one step for all groups
        least = steps.log().mean().exp()
    else:
        least = steps.repeat_interleave(len(own) // len(steps))
    own.copy_(torch.maximum(own.abs(), least.to(own)))


def _levels(quantizer: WeightQuantizer, shape: tuple[int, int, int]) -> Tensor:
    """Values of every weight, (G, O, n, K), or (G, O, 1, K) where a channel has one block."""
    levels = quantizer.levels()
    assert levels is not None
    n_groups, n_out, n_in = shape
    per_row = levels.reshape(-1, quantizer.blocks.n_per_channel, levels.shape[-1])  # (C or 1, ., K)
    per_row = per_row.expand(n_groups * n_out, -1, -1)
    if per_row.shape[1] == 1:
        return per_row.reshape(n_groups, n_out, 1, -1)
    block = torch.arange(n_in, device=levels.device) // quantizer.blocks.size
    return per_row[:, block].reshape(n_groups, n_out, n_in, -1)


def _within_reach(levels: Tensor, weight: Tensor) -> Tensor:
    """Levels between the smallest and the largest weight, and a few more on either side.

    Errors that are made up for push weights a little further; comparing them with every level of
    an 8-bit grid would take a fifth of the time of a look.
    """
    is_between = (levels >= weight.min()) & (levels <= weight.max())
    between = is_between.flatten(0, -2).any(dim=0).nonzero()
    if len(between) == 0:
        return levels
    first, last = int(between[0]), int(between[-1])
    return levels[..., max(0, first - _MARGIN) : last + _MARGIN + 1]


def _output_error(change: Tensor, moment: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Mean squared change of each output, (G·O,), by a change of the weight."""
    rows = change.double().reshape(shape)
    return torch.einsum("gon,gnm,gom->go", rows, moment, rows).flatten().clamp_min(0.0)
