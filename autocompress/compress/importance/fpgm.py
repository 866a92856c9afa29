"""Redundancy: a channel near the geometric median of its layer can be replaced by the others."""

import torch
from torch import Tensor


def fpgm(weight: Tensor) -> Tensor:
    """Sum of distances to all channels of the layer: small if the others can replace it.

    The channel that minimises this sum is the one nearest to the geometric median (FPGM; He et al.
    2019). Unlike a norm it does not ask how large a channel is.

    Args:
        weight: Weights of `C` channels, shape (C, n).

    Returns:
        Shape (C,), in the dtype of `weight`.
    """
    exact = weight.double()  # cdist multiplies matrices: in float32 near channels would drown
    return torch.cdist(exact, exact).sum(dim=1).to(weight.dtype)
