"""Rounding that makes up for its own errors (GPTQ; Frantar et al. 2022), without training.

Columns of a weight are rounded one after the other; what the outputs lose by one is spread over the
columns that are still free. The grids themselves stay as they are.

Dimension key: `G` groups of a convolution, `O` outputs of a group, `n` inputs of one output, `B`
blocks of a weight that share a grid, `K` values of a grid.
"""

import copy
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Final

import torch
from torch import Tensor, nn

from autocompress.analysis.layer_kind import CONVS, layer_kind
from autocompress.compress.compressed_layers import mask_of, quantizer_of, weight_parameters
from autocompress.compress.input_moments import (
    MOST_MOMENT_BYTES,
    input_second_moments,
    moment_bytes,
    why_no_moment,
)
from autocompress.compress.quantize import freeze_
from autocompress.compress.quantizers.base import WeightQuantizer
from autocompress.tasks.base import Inputs

_PASS_BYTES: Final = 2 * MOST_MOMENT_BYTES  # of all layers in one pass over the data
_BLOCK = 64  # columns rounded before the rest of the matrix is updated


def compensate_rounding(
    weight: Tensor,
    second_moment: Tensor,
    levels: Tensor,
    *,
    kept: Tensor | None = None,
    damping: float = 0.01,
    orders_columns: bool = True,
) -> Tensor:
    """Round a matrix to given values so that its products with typical inputs change little.

    Greedy minimisation of tr((W - Q) M (W - Q)ᵀ), column by column, by the rows of the Cholesky
    factor of M's inverse.

    Args:
        weight: Shape (G, O, n).
        second_moment: M, the mean of x xᵀ over inputs x, shape (G, n, n).
        levels: What each weight may become, ascending, shape (G, O, n, K), or (G, O, 1, K) if that
            is the same in all columns.
        kept: Shape (G, O, n), bool: where False the result is 0; None for everywhere True.
        damping: Share of M's mean diagonal that is added to the diagonal.
        orders_columns: Whether columns with large inputs are rounded first, while there is most
            freedom to make up for them (`act_order` of the authors' code).

    Returns:
        Shape (G, O, n), float64.
    """
    H = second_moment.double()
    power = H.diagonal(dim1=-2, dim2=-1)  # (G, n)
    ridge = (damping * power.mean(dim=-1)).clamp_min(1e-12)
    H = H + torch.diag_embed(ridge[:, None].expand_as(power))
    order = power.argsort(dim=-1, descending=True, stable=True)
    if not orders_columns:
        order = torch.arange(power.shape[-1], device=order.device).expand_as(order)
    H = H.gather(1, order[:, :, None].expand_as(H)).gather(2, order[:, None, :].expand_as(H))
    U = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(H)), upper=True)
    column = order[:, None, :].expand_as(weight)
    W = weight.double().gather(2, column)
    rounded = _round_in_order(W, U, levels, order, kept)
    return torch.empty_like(rounded).scatter_(2, column, rounded)


def _round_in_order(
    weight: Tensor, factor: Tensor, levels: Tensor, order: Tensor, kept: Tensor | None
) -> Tensor:
    """Round the columns of (G, O, n) one by one; `factor` is upper triangular, (G, n, n)."""
    rounded, n = torch.empty_like(weight), weight.shape[2]
    group = torch.arange(len(weight), device=weight.device)
    levels = levels.double()
    middles = (levels[..., 1:] + levels[..., :-1]) / 2
    for start in range(0, n, _BLOCK):
        end = min(start + _BLOCK, n)
        errors = weight.new_zeros(*weight.shape[:2], end - start)
        for j in range(start, end):
            column = weight[:, :, j].contiguous()  # (G, O)
            at = order[:, j] if levels.shape[2] > 1 else torch.zeros_like(group)
            index = torch.searchsorted(middles[group, :, at], column[..., None])
            nearest = levels[group, :, at].gather(-1, index)[..., 0]
            if kept is not None:
                nearest = nearest * kept[group, :, order[:, j]]
            error = (column - nearest) / factor[:, j, j, None]
            weight[:, :, j:end] -= error[:, :, None] * factor[:, None, j, j:end]
            rounded[:, :, j], errors[:, :, j - start] = nearest, error
        weight[:, :, end:] -= errors @ factor[:, start:end, end:]
    return rounded


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Compensation:
    """What compensation achieved.

    Attributes:
        error_shares: Layer name -> its squared output error, as a share of that of rounding to
            nearest.
        skipped: Quantized layers that are rounded to nearest instead, and why: one line each.
    """

    error_shares: Mapping[str, float]
    skipped: tuple[str, ...]


def compensate_(
    model: nn.Module, batches: Iterable[Inputs], names: Iterable[str] | None = None
) -> Compensation:
    """Rewrite quantized weights so that their quantizers round them with compensation, in place.

    The inputs of all layers are those they have in the model as it is now, quantized, but with
    float activations. So re-estimate batch-norms before (rounding to nearest shifts what layers
    see), and after. Per output channel, rounding to nearest is kept where it is better, so that no
    layer's output error on these batches is above it.

    Left alone are weights that several layers own, transposed convolutions, embeddings and
    recurrent layers, quantizers whose weights cannot choose their values, and layers of so many
    inputs that their statistics would take more than `MOST_MOMENT_BYTES`.

    Args:
        model: Changed: weights of quantized Linear and Conv layers; masked weights stay 0.
        batches: Calibration inputs, each of shape (N, ...). Kept in memory where the statistics of
            all layers are too much for one pass over them.
        names: Qualified names of layers to look at; None for all.

    Returns:
        What it achieved, and which quantized layers it left alone.
    """
    wanted = None if names is None else set(names)
    quantized = {
        name: layer
        for name, layer in model.named_modules()
        if (wanted is None or name in wanted) and _is_quantized(layer)
    }
    reasons = {name: _why_not(model, layer) for name, layer in quantized.items()}
    passes = _in_passes({n: layer for n, layer in quantized.items() if not reasons[n]})
    batches = batches if len(passes) < 2 else tuple(batches)
    frozen = _frozen(model) if passes else model
    shares = {}
    for names_at_once in passes:
        moments = input_second_moments(frozen, names_at_once, batches)
        for name in names_at_once:
            moment = moments.pop(name, None)
            reasons[name] = _why_unusable(moment)
            if moment is not None and not reasons[name]:
                shares[name] = _compensate_layer_(quantized[name], moment)
    return Compensation(
        error_shares=shares,
        skipped=tuple(
            f"rounding=compensated of '{name}' skipped: {reason}"
            for name, reason in reasons.items()
            if reason
        ),
    )


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
    """A copy with plain layers that hold quantized weights, without input grids."""
    frozen = copy.deepcopy(model)
    for module in frozen.modules():
        module._modules.pop("input_quantizer", None)
    freeze_(frozen)
    return frozen


def _compensate_layer_(layer: nn.Module, moment: Tensor) -> float:
    """Rewrite one layer's weight; its error over that of rounding to nearest."""
    weight, mask, quantizer = layer.get_parameter("weight"), mask_of(layer), quantizer_of(layer)
    assert quantizer is not None
    moment = moment if moment.ndim == 3 else moment[None]  # (G, n, n)
    shape = (len(moment), len(weight) // len(moment), moment.shape[-1])  # (G, O, n)
    with torch.no_grad():
        target = weight if mask is None else weight * mask
        compensated = compensate_rounding(
            target.reshape(shape),
            moment,
            _levels(quantizer, shape),
            kept=None if mask is None else mask.reshape(shape),
        )
        compensated = compensated.reshape(weight.shape).to(weight.dtype)
        nearest, better = (
            _output_error(quantizer(w, mask) - target, moment, shape) for w in (weight, compensated)
        )
        is_better = (better < nearest).reshape(-1, *[1] * (weight.ndim - 1))
        if mask is not None:
            is_better = is_better & mask
        weight.copy_(torch.where(is_better, compensated, weight))
    total = float(nearest.sum())
    return float(torch.minimum(nearest, better).sum()) / total if total > 0 else 1.0


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


def _output_error(change: Tensor, moment: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Mean squared change of each output, (G·O,), by a change of the weight."""
    rows = change.double().reshape(shape)
    return torch.einsum("gon,gnm,gom->go", rows, moment, rows).flatten().clamp_min(0.0)
