"""Tucker-2: a convolution kernel compressed along its input and output channels.

Dimension key: `O` out, `I` in, `K` all kernel positions, `P` out rank, `Q` in rank.
"""

import math

import torch
from torch import Tensor, nn

from autocompress.compress.low_rank.factor_layers import (
    Factorizable,
    conv_of,
    geometry_of,
    in_a_row,
    pointwise_of,
)
from autocompress.compress.low_rank.svd import Shape, check_rank, kept_rank

_HOOI_SWEEPS = 5  # the error changes in the fourth digit only beyond this (ResNet-20's kernels)


def factorize_kernel(weight: Tensor, rank_out: int, rank_in: int) -> tuple[Tensor, Tensor, Tensor]:
    """Split a convolution kernel along its channel modes (Tucker-2; Kim et al. 2016).

    Starts from the HOSVD's input factor and improves both by alternating projections (HOOI;
    De Lathauwer 2000).

    Args:
        weight: Shape (O, I, *kernel), any float dtype; not modified.
        rank_out: P, 1 <= P <= min(O, I * K).
        rank_in: Q, 1 <= Q <= min(I, O * K).

    Returns:
        Factors of shapes (O, P), (P, Q, *kernel) and (Q, I) whose contraction approximates
        `weight`; exact at full ranks.

    Raises:
        ValueError: If a rank is outside its range.
    """
    n_out, n_in, *kernel = weight.shape
    check_rank(rank_out, min(n_out, weight[0].numel()), tuple(weight.shape))
    check_rank(rank_in, min(n_in, weight[:, 0].numel()), tuple(weight.shape))
    W = weight.double().flatten(2)  # (O, I, K)
    U_in = _leading(W.movedim(1, 0).flatten(1), rank_in)  # (I, Q)
    for _ in range(_HOOI_SWEEPS):
        U_out = _leading(torch.einsum("oik,iq->oqk", W, U_in).flatten(1), rank_out)  # (O, P)
        U_in = _leading(torch.einsum("oik,op->ipk", W, U_out).flatten(1), rank_in)
    core = torch.einsum("oik,op,iq->pqk", W, U_out, U_in).reshape(rank_out, rank_in, *kernel)
    return U_out.to(weight.dtype), core.to(weight.dtype), U_in.T.contiguous().to(weight.dtype)


def kernel_ranks(shape: Shape, rank_ratio: float) -> tuple[int, int]:
    """Output and input rank, P and Q, that a ratio keeps of a weight of shape (O, I, *kernel)."""
    n_out, n_in, n_positions = shape[0], shape[1], math.prod(shape[2:])
    full_out, full_in = min(n_out, n_in * n_positions), min(n_in, n_out * n_positions)
    return kept_rank(full_out, rank_ratio), kept_rank(full_in, rank_ratio)


def kernel_size(shape: Shape, rank_ratio: float) -> int:
    """Number of weights in the three factors."""
    rank_out, rank_in = kernel_ranks(shape, rank_ratio)
    core = rank_out * rank_in * math.prod(shape[2:])
    return shape[0] * rank_out + core + rank_in * shape[1]


def split_kernel(
    layer: Factorizable, rank_ratio: float, second_moment: Tensor | None = None
) -> nn.Sequential:
    """1 x 1, the kernel on fewer channels, 1 x 1; `second_moment` is not used."""
    assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    weight = layer.weight.detach()
    left, core, right = factorize_kernel(weight, *kernel_ranks(tuple(weight.shape), rank_ratio))
    return in_a_row(
        layer,
        first=pointwise_of(right, layer),
        core=conv_of(core, **geometry_of(layer)),
        last=pointwise_of(left, layer, layer.bias),
    )


def _leading(matrix: Tensor, rank: int) -> Tensor:
    """The `rank` leading left singular vectors, (rows, rank), from the small Gram matrix."""
    _, vectors = torch.linalg.eigh(matrix @ matrix.T)
    return vectors[:, -rank:].flip(1)
