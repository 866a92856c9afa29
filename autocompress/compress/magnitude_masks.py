"""Masks by magnitude: which weights stay when a share of them becomes zero.

Dimension key: `O` outputs and `n` inputs of a weight seen as a matrix, `M` weights of a group,
`R` x `S` weights of a block.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def n_zeros(n_units: int, sparsity: float) -> int:
    """How many of `n_units` become zero: the nearest count to the share that leaves one standing.

    >>> n_zeros(10, 0.25), n_zeros(3, 0.99)
    (2, 2)
    """
    return min(n_units - 1, round(sparsity * n_units))


def magnitudes(weight: Tensor, earlier: Tensor | None = None) -> Tensor:
    """Absolute values, and -1 where an earlier mask is False. (O, n) -> (O, n)."""
    return weight.abs() if earlier is None else weight.abs().masked_fill(~earlier, -1.0)


def keep_highest(scores: Tensor, n_lowest: int) -> Tensor:
    """All but the `n_lowest` scores; of equal ones the earlier go. Any shape -> bool of it."""
    order = scores.flatten().argsort(stable=True)
    mask = torch.ones(scores.numel(), dtype=torch.bool, device=scores.device)
    mask[order[:n_lowest]] = False
    return mask.reshape(scores.shape)


def unstructured_mask(weight: Tensor, sparsity: float, earlier: Tensor | None = None) -> Tensor:
    """Keep the largest weights (Han et al. 2015).

    Args:
        weight: Any shape.
        sparsity: Share of zeros, in [0, 1).
        earlier: Mask whose zeros go first, same shape.

    Returns:
        Same shape, bool, with exactly `n_zeros` False.
    """
    return keep_highest(magnitudes(weight, earlier), n_zeros(weight.numel(), sparsity))


def group_mask(
    weight: Tensor, sparsity: float, group_size: int, earlier: Tensor | None = None
) -> Tensor:
    """Keep the N largest of every M weights in a row (N:M sparsity; Mishra et al. 2021).

    N is M - round(sparsity x M), at least 1; a shorter last group keeps its own such number.

    Args:
        weight: Shape (O, n).
        sparsity: Share of zeros, in [0, 1).
        group_size: M.
        earlier: Mask whose zeros go first, shape (O, n).

    Returns:
        Shape (O, n), bool.
    """
    scores = magnitudes(weight, earlier)
    n_whole = scores.shape[1] // group_size * group_size
    parts = [
        _mask_in_rows(part.reshape(-1, size), sparsity).reshape(part.shape)
        for part, size in (
            (scores[:, :n_whole], group_size),
            (scores[:, n_whole:], scores.shape[1] - n_whole),
        )
        if part.numel()
    ]
    return torch.cat(parts, dim=1)


def _mask_in_rows(scores: Tensor, sparsity: float) -> Tensor:
    """Keep equally many of every row: (groups, M) -> bool of that shape."""
    order = scores.argsort(dim=1, stable=True)[:, : n_zeros(scores.shape[1], sparsity)]
    return torch.ones_like(scores, dtype=torch.bool).scatter_(1, order, False)


def block_scores(weight: Tensor, block: tuple[int, int], earlier: Tensor | None = None) -> Tensor:
    """Root mean square of each block: whole blocks are ordered as by their L2 norm.

    Blocks at the lower and right edge may be cut short; the mean keeps that from counting.

    Args:
        weight: Shape (O, n).
        block: R rows and S columns.
        earlier: Mask; a block that it makes zero as a whole scores -1.

    Returns:
        Shape (O / R, n / S), each rounded up; float64 unless a block is a single weight.
    """
    if block == (1, 1):  # squaring would turn the smallest floats into ties
        return magnitudes(weight, earlier)
    kept = torch.ones_like(weight) if earlier is None else earlier.to(weight.dtype)
    squares = _sums(weight.double().square() * kept, block)
    scores = (squares / _sums(torch.ones_like(weight), block)).sqrt()
    return scores.masked_fill(_sums(kept, block) == 0, -1.0)


def _sums(values: Tensor, block: tuple[int, int]) -> Tensor:
    """Sum over each block. (O, n) -> (O / R, n / S), rounded up, float64."""
    rows, columns = block
    padded = F.pad(values.double(), (0, -values.shape[1] % columns, 0, -values.shape[0] % rows))
    tiles = padded.unflatten(0, (-1, rows)).unflatten(2, (-1, columns))  # (O/R, R, n/S, S)
    return tiles.sum(dim=(1, 3))
