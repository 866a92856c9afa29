"""What a model's codes will take in the file, as something training can lower.

The file is entropy-coded: a weight whose code is frequent in its tensor takes few bits. Rounding
has no slope, so a weight between two codes counts as a mixture of both, and frequencies are those
of the mixtures. The gradient then is that of the entropy of the tensor's codes: it pulls every
weight towards the more frequent of its two codes (cf. Oktay et al. 2020, EPR; Choi et al. 2020).

Dimension key: `B` blocks that share a scale, `N` weights of a block, `K` values of a grid.
"""

import torch
from torch import Tensor, nn

from autocompress.compress.compressed_layers import (
    is_compressed,
    mask_of,
    quantizer_of,
    weight_parameters,
)
from autocompress.compress.quantizers.base import WeightQuantizer

_PSEUDO_COUNT = 0.5  # of each letter, as an adaptive coder starts (Krichevsky & Trofimov 1981)


def mean_code_bits(model: nn.Module) -> Tensor | None:
    """Bits that a quantized weight takes on average, differentiable.

    Args:
        model: Its quantized weights count; one that several layers own counts once.

    Returns:
        Scalar in bits per quantized weight; None if there is none whose codes can be chosen.
    """
    bits, n_weights = [], 0
    for quantizer, weight in _quantized_weights(model):
        found = quantizer.positions(weight)
        if found is not None:
            bits.append(code_bits(*found))
            n_weights += weight.numel()
    return torch.stack(bits).sum() / n_weights if bits else None


def code_bits(positions: Tensor, n_values: int) -> Tensor:
    """Bits of a tensor's codes under an ideal adaptive coder of order zero, differentiable.

    Args:
        positions: Where weights lie between the values they may take, any shape, in [0, K - 1];
            NaN where there is no weight.
        n_values: K >= 2.

    Returns:
        Scalar.
    """
    positions = positions[~positions.isnan()]
    lower = positions.detach().floor().clamp_(0, n_values - 2).long()
    share = positions - lower  # of the upper code
    with torch.no_grad():
        counts = positions.new_full((n_values,), _PSEUDO_COUNT)
        counts.index_add_(0, lower, 1.0 - share)
        counts.index_add_(0, lower + 1, share)
        bits = (counts.sum() / counts).log2()
    return ((1.0 - share) * bits[lower] + share * bits[lower + 1]).sum()


def _quantized_weights(model: nn.Module) -> list[tuple[WeightQuantizer, Tensor]]:
    """Every quantizer and its masked weight; what several layers own comes once."""
    found: dict[int, tuple[WeightQuantizer, Tensor]] = {}
    for layer in filter(is_compressed, model.modules()):
        for name in weight_parameters(layer):
            weight, mask = layer.get_parameter(name), mask_of(layer, name)
            quantizer = quantizer_of(layer, name)
            if quantizer is not None and id(weight) not in found:
                found[id(weight)] = (quantizer, weight if mask is None else weight * mask)
    return list(found.values())
