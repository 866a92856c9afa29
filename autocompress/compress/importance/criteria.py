"""Magnitude: a channel whose weights are small contributes little.

Dimension key: `C` channels, `n` weights of one channel in one layer.
"""

import hashlib

import torch
from torch import Tensor


def taylor(weight: Tensor, gradient: Tensor) -> Tensor:
    """First-order change of the loss if a channel is removed (Molchanov et al. 2019).

    Args:
        weight: Weights of `C` channels, shape (C, n).
        gradient: Mean gradient of the loss at them, shape (C, n).

    Returns:
        The absolute sum of gradient x weight, shape (C,).
    """
    return (weight * gradient).sum(dim=1).abs()


def random_scores(n_channels: int, group: str) -> Tensor:
    """Uniform scores in [0, 1), the same for the same group in every run.

    Args:
        n_channels: How many.
        group: Name of the channel group; seeds the generator.

    Returns:
        Shape (n_channels,), float64.
    """
    seed = int.from_bytes(hashlib.sha256(group.encode()).digest()[:6], "big")
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n_channels, generator=generator, dtype=torch.float64)


def obd(weight: Tensor, fisher: Tensor) -> Tensor:
    """Second-order change of the loss if a channel is removed: half the sum of F_ii w_i^2.

    Optimal Brain Damage (LeCun et al. 1990) with the diagonal of the empirical Fisher matrix in
    place of the Hessian's (Theis et al. 2018).

    Args:
        weight: Weights of `C` channels, shape (C, n).
        fisher: Diagonal of the empirical Fisher matrix at them, shape (C, n), not negative.

    Returns:
        Shape (C,), not negative.
    """
    return 0.5 * (fisher * weight.square()).sum(dim=1)


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


def batchnorm_scale(gamma: Tensor) -> Tensor:
    """Absolute scale of each channel's batch-norm (network slimming; Liu et al. 2017).

    Args:
        gamma: Scales of `C` channels, shape (C, 1).

    Returns:
        Shape (C,).
    """
    return gamma.abs().flatten()


def l1_norm(weight: Tensor) -> Tensor:
    """Sum of absolute weights per channel (Li et al. 2017). (C, n) -> (C,)."""
    return weight.abs().sum(dim=1)


def l2_norm(weight: Tensor) -> Tensor:
    """Euclidean norm of the weights per channel. (C, n) -> (C,)."""
    return torch.linalg.vector_norm(weight, dim=1)
