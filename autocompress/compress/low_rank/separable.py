"""Separable replacement: a kernel as a depthwise convolution followed by a 1 x 1.

Dimension key: `O` out, `I` in, `K` all kernel positions, `m` depthwise filters per input channel.
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


def factorize_separably(weight: Tensor, multiplier: int) -> tuple[Tensor, Tensor]:
    """Split a kernel into depthwise filters and a mix of them (Guo et al. 2018).

    What an input channel does to all outputs is a matrix of shape (O, K); each is replaced by its
    best approximation of rank m. With m = 1 this is the depthwise-separable convolution nearest to
    the kernel.

    Args:
        weight: Shape (O, I, *kernel), any float dtype; not modified.
        multiplier: m, 1 <= m <= min(O, K); exact at the upper end.

    Returns:
        Depthwise filters of shape (I * m, 1, *kernel) and a matrix of shape (O, I * m), in the
        dtype of `weight`.

    Raises:
        ValueError: If `multiplier` is outside its range.
    """
    n_out, n_in, *kernel = weight.shape
    check_rank(multiplier, min(n_out, math.prod(kernel)), tuple(weight.shape))
    per_input = weight.double().flatten(2).movedim(1, 0)  # (I, O, K)
    U, S, Vh = torch.linalg.svd(per_input, full_matrices=False)
    root = S[:, :multiplier].sqrt()  # (I, m)
    filters = root[..., None] * Vh[:, :multiplier]  # (I, m, K)
    mix = (U[..., :multiplier] * root[:, None]).movedim(0, 1)  # (O, I, m)
    depthwise = filters.reshape(n_in * multiplier, 1, *kernel)
    return depthwise.to(weight.dtype), mix.flatten(1).to(weight.dtype)


def separable_ranks(shape: Shape, rank_ratio: float) -> tuple[int]:
    """The multiplier m that a ratio keeps of a weight of shape (O, I, *kernel)."""
    return (kept_rank(min(shape[0], math.prod(shape[2:])), rank_ratio),)


def separable_size(shape: Shape, rank_ratio: float) -> int:
    """Number of weights in the depthwise and the 1 x 1 convolution."""
    (multiplier,) = separable_ranks(shape, rank_ratio)
    return shape[1] * multiplier * (math.prod(shape[2:]) + shape[0])


def split_separably(
    layer: Factorizable, rank_ratio: float, second_moment: Tensor | None = None
) -> nn.Sequential:
    """A depthwise convolution with m filters per channel, then a 1 x 1."""
    assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    weight = layer.weight.detach()
    (multiplier,) = separable_ranks(tuple(weight.shape), rank_ratio)
    depthwise, mix = factorize_separably(weight, multiplier)
    geometry = {**geometry_of(layer), "groups": layer.in_channels}
    return in_a_row(
        layer,
        depthwise=conv_of(depthwise, **geometry),
        pointwise=pointwise_of(mix, layer, layer.bias),
    )
