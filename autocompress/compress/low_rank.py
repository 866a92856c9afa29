"""Low rank: truncated SVD of matrices, Tucker-2 of convolution kernels.

Dimension key: `O` out, `I` in, `K` all kernel positions, `R` rank, `P` out rank, `Q` in rank.
"""

import math
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

_HOOI_SWEEPS = 5  # the error changes in the fourth digit only beyond this (ResNet-20's kernels)


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
    _check_rank(rank, min(weight.shape), tuple(weight.shape))
    U, S, Vh = torch.linalg.svd(weight.double(), full_matrices=False)
    root = S[:rank].sqrt()
    left, right = U[:, :rank] * root, root[:, None] * Vh[:rank]
    return left.to(weight.dtype), right.to(weight.dtype)


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
    _check_rank(rank_out, min(n_out, weight[0].numel()), tuple(weight.shape))
    _check_rank(rank_in, min(n_in, weight[:, 0].numel()), tuple(weight.shape))
    W = weight.double().flatten(2)  # (O, I, K)
    U_in = _leading(W.movedim(1, 0).flatten(1), rank_in)  # (I, Q)
    for _ in range(_HOOI_SWEEPS):
        U_out = _leading(torch.einsum("oik,iq->oqk", W, U_in).flatten(1), rank_out)  # (O, P)
        U_in = _leading(torch.einsum("oik,op->ipk", W, U_out).flatten(1), rank_in)
    core = torch.einsum("oik,op,iq->pqk", W, U_out, U_in).reshape(rank_out, rank_in, *kernel)
    return U_out.to(weight.dtype), core.to(weight.dtype), U_in.T.contiguous().to(weight.dtype)


def ranks_of(shape: tuple[int, ...], rank_ratio: float) -> tuple[int, int]:
    """Output and input rank that a ratio keeps of a weight of shape (O, I, *kernel)."""
    n_out, n_in, n_positions = shape[0], shape[1], math.prod(shape[2:])
    full_out, full_in = min(n_out, n_in * n_positions), min(n_in, n_out * n_positions)
    return max(1, round(rank_ratio * full_out)), max(1, round(rank_ratio * full_in))


def shrinks(shape: tuple[int, ...], rank_ratio: float) -> bool:
    """Whether the factors of a weight of shape (O, I, *kernel) hold fewer parameters than it."""
    n_out, n_in, n_positions = shape[0], shape[1], math.prod(shape[2:])
    rank_out, rank_in = ranks_of(shape, rank_ratio)
    if n_positions == 1:
        return rank_out * (n_out + n_in) < n_out * n_in
    factors = n_out * rank_out + rank_out * rank_in * n_positions + rank_in * n_in
    return factors < n_out * n_in * n_positions


def factorize_(model: nn.Module, name: str, rank_ratio: float) -> str:
    """Replace a layer by its factors, in place.

    Args:
        model: Changed.
        name: Qualified name of a Linear or ungrouped Conv1d/2d/3d layer with zero padding.
        rank_ratio: Share of the full rank KEPT, in (0, 1].

    Returns:
        Why the layer was left as it is, or "" if it was replaced.
    """
    layer = model.get_submodule(name)
    assert isinstance(layer.weight, Tensor)
    shape = tuple(layer.weight.shape)
    if not shrinks(shape, rank_ratio):
        return (
            f"rank_ratio={rank_ratio:g} of '{name}' skipped: "
            f"factors of its weight {shape} would not be smaller than it"
        )
    factors = _factors_of(layer, rank_ratio)
    factors.train(layer.training)
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if module is layer:  # a shared layer can stand under several names
            model.set_submodule(path, factors)
    return ""


def _factors_of(layer: nn.Module, rank_ratio: float) -> nn.Sequential:
    assert isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
    weight = layer.weight.detach()
    rank_out, rank_in = ranks_of(tuple(weight.shape), rank_ratio)
    if isinstance(layer, nn.Linear):
        left, right = factorize_matrix(weight, rank_out)
        first = _filled(nn.Linear(layer.in_features, rank_out, bias=False), right)
        last = _filled(nn.Linear(rank_out, layer.out_features), left, layer.bias)
        return nn.Sequential(OrderedDict(first=first, last=last))
    conv: Any = type(layer)
    spatial = [1] * (weight.ndim - 2)
    geometry: dict[str, Any] = {
        "stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation
    }  # fmt: skip
    if set(layer.kernel_size) == {1}:
        left, right = factorize_matrix(weight.flatten(1), rank_out)
        right, left = right.reshape(*right.shape, *spatial), left.reshape(*left.shape, *spatial)
        first = _filled(conv(layer.in_channels, rank_out, 1, bias=False, **geometry), right)
        last = _filled(conv(rank_out, layer.out_channels, 1), left, layer.bias)
        return nn.Sequential(OrderedDict(first=first, last=last))
    left, core, right = factorize_kernel(weight, rank_out, rank_in)
    first = _filled(
        conv(layer.in_channels, rank_in, 1, bias=False), right.reshape(*right.shape, *spatial)
    )
    middle = _filled(conv(rank_in, rank_out, layer.kernel_size, bias=False, **geometry), core)
    last = _filled(
        conv(rank_out, layer.out_channels, 1), left.reshape(*left.shape, *spatial), layer.bias
    )
    return nn.Sequential(OrderedDict(first=first, core=middle, last=last))


def _filled(layer: Any, weight: Tensor, bias: Tensor | None = None) -> nn.Module:
    if bias is None:
        layer.register_parameter("bias", None)
    else:
        layer.bias = nn.Parameter(bias.detach().clone())
    layer.weight = nn.Parameter(weight.clone())
    module: nn.Module = layer
    return module


def _leading(matrix: Tensor, rank: int) -> Tensor:
    """The `rank` leading left singular vectors, (rows, rank), from the small Gram matrix."""
    _, vectors = torch.linalg.eigh(matrix @ matrix.T)
    return vectors[:, -rank:].flip(1)


def _check_rank(rank: int, full: int, shape: tuple[int, ...]) -> None:
    if not 1 <= rank <= full:
        msg = f"`rank` must be in [1, {full}] for a weight of shape {shape}, but got {rank}."
        raise ValueError(msg)
