"""Chance: the control that every criterion has to beat."""

import hashlib

import torch
from torch import Tensor


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
