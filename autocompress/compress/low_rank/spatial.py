"""Spatial split: a 2-D kernel as a column kernel followed by a row kernel.

Dimension key: `O` out, `I` in, `H` kernel height, `W` kernel width, `R` rank.
"""

from typing import Any

from torch import Tensor, nn

from autocompress.compress.low_rank.factor_layers import (
    Factorizable,
    conv_of,
    geometry_of,
    in_a_row,
)
from autocompress.compress.low_rank.svd import Shape, factorize_matrix, kept_rank


def factorize_spatially(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Split a 2-D kernel into a column kernel and a row kernel (Jaderberg et al. 2014, scheme 2).

    Args:
        weight: Shape (O, I, H, W), any float dtype; not modified.
        rank: R, 1 <= R <= min(O * W, I * H).

    Returns:
        Kernels of shape (R, I, H, 1), to be applied first, and (O, R, 1, W), in the dtype of
        `weight`. Their composition is the best of its kind in Frobenius norm; exact at full rank.

    Raises:
        ValueError: If `rank` is outside its range.
    """
    n_out, n_in, height, width = weight.shape
    matrix = weight.permute(0, 3, 1, 2).reshape(n_out * width, n_in * height)  # (O·W, I·H)
    left, right = factorize_matrix(matrix, rank)
    row = left.reshape(n_out, width, rank).movedim(1, 2)[:, :, None]  # (O, R, 1, W)
    return right.reshape(rank, n_in, height, 1), row


def spatial_ranks(shape: Shape, rank_ratio: float) -> tuple[int]:
    """The rank R that a ratio keeps of a weight of shape (O, I, H, W)."""
    n_out, n_in, height, width = shape
    return (kept_rank(min(n_out * width, n_in * height), rank_ratio),)


def spatial_size(shape: Shape, rank_ratio: float) -> int:
    """Number of weights in both kernels."""
    n_out, n_in, height, width = shape
    (rank,) = spatial_ranks(shape, rank_ratio)
    return rank * (n_in * height + n_out * width)


def split_spatially(
    layer: Factorizable, rank_ratio: float, second_moment: Tensor | None = None
) -> nn.Sequential:
    """H x 1, then 1 x W, each with its half of stride, padding and dilation."""
    assert isinstance(layer, nn.Conv2d)
    weight = layer.weight.detach()
    column, row = factorize_spatially(weight, *spatial_ranks(tuple(weight.shape), rank_ratio))
    geometry = geometry_of(layer)
    neutral = {"stride": 1, "padding": 0, "dilation": 1}
    first = {key: _half(value, neutral.get(key), 0) for key, value in geometry.items()}
    second = {key: _half(value, neutral.get(key), 1) for key, value in geometry.items()}
    return in_a_row(
        layer,
        vertical=conv_of(column, **first),
        horizontal=conv_of(row, layer.bias, **second),
    )


def _half(value: Any, neutral: int | None, dim: int) -> Any:
    """A (vertical, horizontal) pair with one side neutral; names such as "same" fit both sides."""
    if isinstance(value, str):
        return value
    return (value[0], neutral) if dim == 0 else (neutral, value[1])
