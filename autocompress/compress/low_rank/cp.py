"""CP: a convolution kernel as a sum of R outer products, found by alternating least squares.

Dimension key: `O` out, `I` in, `K` all kernel positions, `R` rank.
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

_MAX_SWEEPS = 50
_MIN_GAIN = 1e-3  # a sweep that lowers the error by a smaller share is the last one
_PULL = 1e-6  # towards the previous factor, as a share of the mean diagonal of the normal matrix
_EXACT = 1e-20  # share of the squared norm below which an error is rounding


def factorize_cp(weight: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Split a kernel, as a tensor of shape (O, I, K), into a sum of outer products (CP).

    Starts from the singular vectors of the kernel's slices and improves one factor at a time by
    least squares (Lebedev et al. 2015). A pull towards the previous factor keeps that solvable
    where terms turn collinear (Li, Kindermann & Navasca 2013). The best sweep is kept.

    Args:
        weight: Shape (O, I, *kernel), any float dtype; not modified.
        rank: R, 1 <= R <= the product of the two smallest of O, I and K.

    Returns:
        Factors of shapes (O, R), (R, *kernel) and (R, I), in the dtype of `weight`; exact at full
        rank. The three vectors of a term have the same norm.

    Raises:
        ValueError: If `rank` is outside its range.
    """
    check_rank(rank, _full_rank(tuple(weight.shape)), tuple(weight.shape))
    tensor = weight.double().flatten(2)  # (O, I, K)
    energy = float(tensor.square().sum())
    factors = best = _from_slices(tensor, rank)
    best_error = _squared_error(tensor, factors)
    for _ in range(_MAX_SWEEPS):
        if best_error <= _EXACT * energy:
            break
        factors = _balanced(_sweep(tensor, factors))
        error = _squared_error(tensor, factors)
        is_settled = not error < (1.0 - _MIN_GAIN) * best_error  # also when it is not a number
        if error < best_error:
            best, best_error = factors, error
        if is_settled:
            break
    out, into, spatial = (factor.to(weight.dtype) for factor in best)
    return out, spatial.T.reshape(rank, *weight.shape[2:]), into.T.contiguous()


def cp_ranks(shape: Shape, rank_ratio: float) -> tuple[int]:
    """The number of terms R that a ratio keeps of a weight of shape (O, I, *kernel)."""
    return (kept_rank(_full_rank(shape), rank_ratio),)


def cp_size(shape: Shape, rank_ratio: float) -> int:
    """Number of weights in the three factors."""
    (rank,) = cp_ranks(shape, rank_ratio)
    return rank * (shape[0] + shape[1] + math.prod(shape[2:]))


def split_cp(
    layer: Factorizable, rank_ratio: float, second_moment: Tensor | None = None
) -> nn.Sequential:
    """1 x 1 to R channels, a depthwise kernel, 1 x 1 back."""
    assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    weight = layer.weight.detach()
    (rank,) = cp_ranks(tuple(weight.shape), rank_ratio)
    left, spatial, right = factorize_cp(weight, rank)
    geometry = {**geometry_of(layer), "groups": rank}
    return in_a_row(
        layer,
        first=pointwise_of(right, layer),
        core=conv_of(spatial[:, None], **geometry),
        last=pointwise_of(left, layer, layer.bias),
    )


def _full_rank(shape: Shape) -> int:
    """Terms that suffice for any tensor of this shape: one per entry of the smallest face."""
    smallest, second, _ = sorted((shape[0], shape[1], math.prod(shape[2:])))
    return smallest * second


def _from_slices(tensor: Tensor, rank: int) -> list[Tensor]:
    """The `rank` strongest of the orthogonal terms that the SVDs of all slices consist of.

    Slices are taken along the smallest mode, after turning it into its principal axes (HOSVD).

    Returns:
        Factors of shapes (O, R), (I, R) and (K, R).
    """
    mode = min(range(3), key=lambda dim: tensor.shape[dim])
    slices = tensor.movedim(mode, 0)  # (S, A, B)
    unfolded = slices.flatten(1)
    _, axes = torch.linalg.eigh(unfolded @ unfolded.T)  # (S, S)
    U, S, Vh = torch.linalg.svd(torch.einsum("sab,st->tab", slices, axes), full_matrices=False)
    order = S.flatten().argsort(descending=True, stable=True)[:rank]
    position, term = order // S.shape[1], order % S.shape[1]
    root = S.flatten()[order].pow(1 / 3)
    factors = [root * U[position, :, term].T, root * Vh[position, term].T]
    factors.insert(mode, root * axes[:, position])
    return factors


def _sweep(tensor: Tensor, factors: list[Tensor]) -> list[Tensor]:
    """Each factor in turn by least squares, the other two held."""
    factors = list(factors)
    for mode, formula in enumerate(("oik,ir,kr->or", "oik,or,kr->ir", "oik,or,ir->kr")):
        first, second = (factors[other] for other in range(3) if other != mode)
        normal = (first.T @ first) * (second.T @ second)  # (R, R)
        pull = _PULL * normal.diagonal().mean()
        target = torch.einsum(formula, tensor, first, second) + pull * factors[mode]
        normal.diagonal().add_(pull)
        factors[mode] = torch.linalg.solve(normal, target, left=False)
    return factors


def _balanced(factors: list[Tensor]) -> list[Tensor]:
    """The same terms, each with one norm for its three vectors."""
    norms = torch.stack([factor.norm(dim=0) for factor in factors])  # (3, R)
    wanted = norms.prod(dim=0).pow(1 / 3)
    share = wanted / norms.clamp_min(torch.finfo(torch.float64).tiny)
    return [factor * scale for factor, scale in zip(factors, share, strict=True)]


def _squared_error(tensor: Tensor, factors: list[Tensor]) -> float:
    return float((torch.einsum("or,ir,kr->oik", *factors) - tensor).square().sum())
