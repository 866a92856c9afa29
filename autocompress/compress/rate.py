"""What integer codes cost in an entropy coder, and rounding that weighs it against the error.

The rate-distortion rounding of Conzelmann & Bamler (2025), with a zero-order model of a layer's
codes, and without their quadratic estimate of the bits of weights that are not rounded yet.
DeepCABAC (Wiedemann et al. 2020) weighs bits in the same way, but makes up for nothing.

Dimension key: `G` groups of a convolution, `O` outputs of a group, `n` inputs of one output, `K`
values of a grid.
"""

import math
from typing import Final

import torch
from torch import Tensor

from autocompress.compress.compensated_rounding import compensate_rounding

_SMOOTHING: Final = 0.5  # of a count: what an adaptive coder pays (Krichevsky & Trofimov 1981)
_PASSES: Final = 2  # more changed neither bits nor error of a ResNet-20


def code_lengths(codes: Tensor, n_codes: int) -> Tensor:
    """Bits that each code takes if it is coded by how often all of them occur.

    Every code is counted half a time more than it occurs, so that all lengths are finite.

    Args:
        codes: Integers in [0, n_codes), any shape.
        n_codes: K, codes there are.

    Returns:
        Shape (K,), float64, positive if K > 1.

    >>> code_lengths(torch.tensor([0, 0, 0, 1]), 2).exp2()
    tensor([1.4286, 3.3333], dtype=torch.float64)
    """
    counts = torch.bincount(codes.flatten(), minlength=n_codes).double() + _SMOOTHING
    return (counts.sum() / counts).log2()


def nearest_codes(values: Tensor, levels: Tensor) -> Tensor:
    """Index of the level that is nearest to each value.

    Args:
        values: Shape (G, O, n).
        levels: Ascending, shape (G, O, n, K), or (G, O, 1, K) if they are the same in all columns.

    Returns:
        Shape (G, O, n), int64.
    """
    levels = levels.double()
    middles = (levels[..., 1:] + levels[..., :-1]) / 2
    if levels.shape[2] == 1:
        return torch.searchsorted(middles[:, :, 0], values.double().contiguous())
    return torch.searchsorted(middles, values.double()[..., None])[..., 0]


def step_for_price(price: float, curvature: Tensor) -> Tensor:
    """Step of a uniform grid at which one more bit per weight is worth what it costs.

    A fine grid has the squared error step² / 12, and half the step takes one bit more (Gish &
    Pierce 1968): with each bit the error falls by curvature · step² · ln 2 / 6, which is the price
    here. At few bits, where this is no longer exact, no other factor was measured to be better.

    Args:
        price: Squared output error that one bit is worth, >= 0.
        curvature: Output error per squared error of a weight, > 0, any shape.

    Returns:
        Steps, of the shape of `curvature`.
    """
    return (6.0 / math.log(2.0) * price / curvature).sqrt()


def round_for_rate(
    weight: Tensor,
    second_moment: Tensor,
    levels: Tensor,
    price: float,
    *,
    kept: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Round a matrix so that its products change little and its codes take few bits.

    Greedy minimisation of tr((W - Q) M (W - Q)ᵀ) + price · bits, where a code takes as many bits as
    its share in the matrix says: at first among the nearest codes, then among those found so far.

    Args:
        weight: Shape (G, O, n).
        second_moment: M, the mean of x xᵀ over inputs x, shape (G, n, n).
        levels: As in `compensate_rounding`.
        price: Squared output error that one bit is worth, >= 0; at 0 this is `compensate_rounding`.
        kept: Shape (G, O, n), bool: where False the result is 0; None for everywhere True.

    Returns:
        Rounded weights, shape (G, O, n), float64; and the length of each code by the shares in
        them, shape (K,), in bits.
    """
    n_codes = levels.shape[-1]
    rounded = weight if kept is None else weight * kept
    for _ in range(_PASSES if price > 0.0 else 1):
        lengths = code_lengths(nearest_codes(rounded, levels), n_codes)
        costs = None if price == 0.0 else price * lengths
        rounded = compensate_rounding(weight, second_moment, levels, kept=kept, costs=costs)
    return rounded, code_lengths(nearest_codes(rounded, levels), n_codes)
