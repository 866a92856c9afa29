"""Magnitude: a channel whose weights are small contributes little.

Dimension key: `C` channels, `n` weights of one channel in one layer.
"""

import torch
from torch import Tensor


def l1_norm(weight: Tensor) -> Tensor:
    """Sum of absolute weights per channel (Li et al. 2017). (C, n) -> (C,)."""
    return weight.abs().sum(dim=1)


def l2_norm(weight: Tensor) -> Tensor:
    """Euclidean norm of the weights per channel. (C, n) -> (C,)."""
    return torch.linalg.vector_norm(weight, dim=1)
