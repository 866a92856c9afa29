"""Data-aware SVD: the two thin factors that keep a layer's outputs, not its weights.

Dimension key: `O` out, `n` inputs of one output (I·K for a kernel), `R` rank.
"""

import torch
from torch import Tensor, nn

from autocompress.compress.low_rank.factor_layers import Factorizable
from autocompress.compress.low_rank.svd import check_rank, matrix_ranks, two_layers

_DAMPING = 1e-6  # share of white inputs among those seen: decides where the data say nothing
_TINY = torch.finfo(torch.float64).tiny


def factorize_for_outputs(
    weight: Tensor, output_moment: Tensor, rank: int
) -> tuple[Tensor, Tensor]:
    """Split a matrix into the two thin factors that minimise the squared error of its outputs.

    Projecting the outputs y = W x on the `rank` leading eigenvectors U of their second moment is
    the best that a matrix of this rank can do, and U (Uᵀ W) does just that (Zhang et al. 2016,
    without their mean). A trace of white inputs is mixed in, so that directions the data never
    showed are ranked as plain SVD ranks them, and full rank is exact.

    Args:
        weight: W, shape (O, n), any float dtype; not modified.
        output_moment: Mean of y yᵀ, shape (O, O), float64, symmetric.
        rank: R, 1 <= R <= min(O, n).

    Returns:
        Factors of shape (O, R) and (R, n), in the dtype of `weight`; the columns of the first are
        orthogonal, and each has the norm of its row in the second.

    Raises:
        ValueError: If `rank` is outside its range, or `output_moment` has another shape.
    """
    check_rank(rank, min(weight.shape), tuple(weight.shape))
    if output_moment.shape != (len(weight), len(weight)):
        msg = (
            f"`output_moment` must have shape {(len(weight), len(weight))} for a weight of shape "
            f"{tuple(weight.shape)}, but got {tuple(output_moment.shape)}."
        )
        raise ValueError(msg)
    W, C = weight.double(), output_moment.double()
    white = W @ W.T  # the second moment that white inputs would give
    mixed = C / C.trace().clamp_min(_TINY) + _DAMPING * white / white.trace().clamp_min(_TINY)
    _, vectors = torch.linalg.eigh(mixed)  # ascending
    U = vectors[:, -rank:].flip(1)  # (O, R)
    right = U.T @ W  # (R, n)
    root = right.norm(dim=1).clamp_min(_TINY).sqrt()
    return (U * root).to(weight.dtype), (right / root[:, None]).to(weight.dtype)


def split_for_outputs(
    layer: Factorizable, rank_ratio: float, second_moment: Tensor | None
) -> nn.Sequential:
    """Two layers in place of one, given the second moment of its outputs, shape (O, O)."""
    assert second_moment is not None, "this method needs data"
    weight = layer.weight.detach()
    (rank,) = matrix_ranks(tuple(weight.shape), rank_ratio)
    moment = second_moment.to(weight.device)
    return two_layers(layer, *factorize_for_outputs(weight.flatten(1), moment, rank))
