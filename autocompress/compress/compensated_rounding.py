"""Rounding column by column, each error spread over the columns that are still free.

GPTQ (Frantar et al. 2022), and with costs of levels the greedy rate-distortion rounding of
Conzelmann & Bamler (2025).

Dimension key: `G` groups of a convolution, `O` outputs of a group, `n` inputs of one output, `K`
values of a grid.
"""

import torch
from torch import Tensor

_BLOCK = 64  # columns rounded before the rest of the matrix is updated
_MOST_CHOICES = 2**22  # levels of weights compared at a time


def compensate_rounding(
    weight: Tensor,
    second_moment: Tensor,
    levels: Tensor,
    *,
    kept: Tensor | None = None,
    costs: Tensor | None = None,
    damping: float = 0.01,
    orders_columns: bool = True,
) -> Tensor:
    """Round a matrix to given values so that its products with typical inputs change little.

    Greedy minimisation of tr((W - Q) M (W - Q)ᵀ), column by column, by the rows of the Cholesky
    factor of M's inverse. A weight becomes the level that adds least to that error, which is the
    nearest; or, with `costs`, to the sum of error and costs.

    Args:
        weight: Shape (G, O, n).
        second_moment: M, the mean of x xᵀ over inputs x, shape (G, n, n).
        levels: What each weight may become, ascending, shape (G, O, n, K), or (G, O, 1, K) if that
            is the same in all columns.
        kept: Shape (G, O, n), bool: where False the result is 0; None for everywhere True.
        costs: What it costs to become each level, in units of the squared error, shape (K,) or one
            that broadcasts over (G, O, K); None for nothing.
        damping: Share of M's mean diagonal that is added to the diagonal.
        orders_columns: Whether columns with large inputs are rounded first, while there is most
            freedom to make up for them (`act_order` of the authors' code).

    Returns:
        Shape (G, O, n), float64.
    """
    order = _order(second_moment, orders_columns)
    factor = _ordered_factor(second_moment, order, damping)
    column = order[:, None, :].expand_as(weight)
    W = weight.double().gather(2, column)
    rounded = _round_in_order(W, factor, levels.double(), order, kept, costs)
    return torch.empty_like(rounded).scatter_(2, column, rounded)


def curvature_of(second_moment: Tensor, *, damping: float = 0.01) -> Tensor:
    """By how much the error of `compensate_rounding` grows per squared rounding error of a weight.

    The geometric mean over the columns, each with those after it free to make up for it. It does
    not depend on the order of the columns: it is a root of M's determinant.

    Args:
        second_moment: M, shape (G, n, n).
        damping: As in `compensate_rounding`.

    Returns:
        Shape (G,), float64, positive.
    """
    factor = torch.linalg.cholesky(_damped(second_moment, damping))
    return factor.diagonal(dim1=-2, dim2=-1).log().mean(dim=-1).mul(2).exp()


def _damped(second_moment: Tensor, damping: float) -> Tensor:
    M = second_moment.double()
    power = M.diagonal(dim1=-2, dim2=-1)  # (G, n)
    ridge = (damping * power.mean(dim=-1)).clamp_min(1e-12)
    return M + torch.diag_embed(ridge[:, None].expand_as(power))


def _order(second_moment: Tensor, orders_columns: bool) -> Tensor:
    """Columns in the order they are rounded in, (G, n)."""
    power = second_moment.double().diagonal(dim1=-2, dim2=-1)
    if orders_columns:
        return power.argsort(dim=-1, descending=True, stable=True)
    return torch.arange(power.shape[-1], device=power.device).expand(power.shape)


def _ordered_factor(second_moment: Tensor, order: Tensor, damping: float) -> Tensor:
    """Upper Cholesky factor of the inverse of M, its columns in order, (G, n, n)."""
    H = _damped(second_moment, damping)
    H = H.gather(1, order[:, :, None].expand_as(H)).gather(2, order[:, None, :].expand_as(H))
    return torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(H)), upper=True)


def _round_in_order(
    weight: Tensor,
    factor: Tensor,
    levels: Tensor,
    order: Tensor,
    kept: Tensor | None,
    costs: Tensor | None,
) -> Tensor:
    """Round the columns of (G, O, n) one by one; `factor` is upper triangular, (G, n, n)."""
    rounded, n = torch.empty_like(weight), weight.shape[2]
    group = torch.arange(len(weight), device=weight.device)
    middles = (levels[..., 1:] + levels[..., :-1]) / 2
    for start in range(0, n, _BLOCK):
        end = min(start + _BLOCK, n)
        errors = weight.new_zeros(*weight.shape[:2], end - start)
        for j in range(start, end):
            column = weight[:, :, j].contiguous()  # (G, O)
            at = order[:, j] if levels.shape[2] > 1 else torch.zeros_like(group)
            allowed, scale = levels[group, :, at], factor[:, j, j, None]  # (G, O, K), (G, 1)
            if costs is None:
                index = torch.searchsorted(middles[group, :, at], column[..., None])
            else:
                index = _cheapest(column, allowed, scale, costs)
            chosen = allowed.gather(-1, index)[..., 0]
            if kept is not None:
                chosen = chosen * kept[group, :, order[:, j]]
            error = (column - chosen) / scale
            weight[:, :, j:end] -= error[:, :, None] * factor[:, None, j, j:end]
            rounded[:, :, j], errors[:, :, j - start] = chosen, error
        weight[:, :, end:] -= errors @ factor[:, start:end, end:]
    return rounded


def _cheapest(column: Tensor, levels: Tensor, scale: Tensor, costs: Tensor) -> Tensor:
    """Index of the level with the least error and cost, (G, O, 1).

    The later columns make up for a change e of this one as far as they can; e² / scale² remains.
    """
    price = costs.expand_as(levels)
    n_rows = max(1, _MOST_CHOICES // (levels.shape[0] * levels.shape[2]))
    parts = [
        ((column[:, rows, None] - levels[:, rows]) / scale[..., None])
        .square_()
        .add_(price[:, rows])
        .argmin(dim=-1, keepdim=True)
        for rows in torch.arange(column.shape[1], device=column.device).split(n_rows)
    ]
    return torch.cat(parts, dim=1)
