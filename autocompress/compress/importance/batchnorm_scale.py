"""Batch-norm scale: the factor that a normalised channel leaves its layer with."""

from torch import Tensor


def batchnorm_scale(gamma: Tensor) -> Tensor:
    """Absolute scale of each channel's batch-norm (network slimming; Liu et al. 2017).

    Args:
        gamma: Scales of `C` channels, shape (C, 1).

    Returns:
        Shape (C,).
    """
    return gamma.abs().flatten()
