"""Truncated SVD: a matrix as the product of two thin ones.

A convolution kernel of shape (O, I, *kernel) is taken as the matrix (O, I·K).

Dimension key: `O` out, `I` in, `K` all kernel positions, `n` = I·K, `R` rank.
"""

import math
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from autocompress.compress.low_rank.factor_layers import (
    Factorizable,
    conv_of,
    embedding_of,
    geometry_of,
    in_a_row,
    linear_of,
    pointwise_of,
)

Shape: TypeAlias = tuple[int, ...]


def kept_rank(full_rank: int, rank_ratio: float) -> int:
    """The rank that a share of the full one keeps, at least 1.

    >>> kept_rank(64, 0.25), kept_rank(8, 0.01)
    (16, 1)
    """
    return max(1, round(rank_ratio * full_rank))


def check_rank(rank: int, full_rank: int, shape: Shape) -> None:
    """Raise a ValueError unless `rank` is one that a weight of this shape can have."""
    if not 1 <= rank <= full_rank:
        msg = f"`rank` must be in [1, {full_rank}] for a weight of shape {shape}, but got {rank}."
        raise ValueError(msg)


def factorize_matrix(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Split a matrix into two thin factors by truncated SVD.

    The product is the best rank-`rank` approximation in Frobenius norm (Eckart & Young 1936). The
    singular values are shared evenly, so that both factors have the same scale.

    Args:
        weight: Shape (O, I), any float dtype; not modified.
        rank: Number of singular values kept, 1 <= rank <= min(O, I).

    Returns:
        Factors of shape (O, rank) and (rank, I), in the dtype of `weight`.

    Raises:
        ValueError: If `rank` is outside its range.
    """
    check_rank(rank, min(weight.shape), tuple(weight.shape))
    U, S, Vh = torch.linalg.svd(weight.double(), full_matrices=False)
    root = S[:rank].sqrt()
    left, right = U[:, :rank] * root, root[:, None] * Vh[:rank]
    return left.to(weight.dtype), right.to(weight.dtype)


def matrix_ranks(shape: Shape, rank_ratio: float) -> tuple[int]:
    """The rank R that a ratio keeps of a weight of shape (O, I, *kernel) taken as (O, n)."""
    return (kept_rank(min(shape[0], math.prod(shape[1:])), rank_ratio),)


def matrix_size(shape: Shape, rank_ratio: float) -> int:
    """Number of weights in both factors."""
    (rank,) = matrix_ranks(shape, rank_ratio)
    return rank * (shape[0] + math.prod(shape[1:]))


def split_matrix(
    layer: Factorizable, rank_ratio: float, second_moment: Tensor | None = None
) -> nn.Sequential:
    """Two layers in place of one, from the SVD of its weight; `second_moment` is not used."""
    weight = layer.weight.detach()
    (rank,) = matrix_ranks(tuple(weight.shape), rank_ratio)
    return two_layers(layer, *factorize_matrix(weight.flatten(1), rank))


def two_layers(layer: Factorizable, left: Tensor, right: Tensor) -> nn.Sequential:
    """The layers that compute with `left @ right` in place of the weight of `layer`.

    A convolution becomes one of its own kernel with R outputs, then a 1 x 1 (Zhang et al. 2016); an
    embedding one of width R, then a Linear (Lan et al. 2020).

    Args:
        layer: Not modified.
        left: Shape (O, R); (V, R) for an embedding of V tokens.
        right: Shape (R, n).
    """
    if isinstance(layer, nn.Embedding):
        return in_a_row(layer, first=embedding_of(left, layer), last=linear_of(right.T))
    if isinstance(layer, nn.Linear):
        return in_a_row(layer, first=linear_of(right), last=linear_of(left, layer.bias))
    kernel: Any = right.reshape(len(right), *layer.weight.shape[1:])
    first = conv_of(kernel, **geometry_of(layer))
    return in_a_row(layer, first=first, last=pointwise_of(left, layer, layer.bias))
