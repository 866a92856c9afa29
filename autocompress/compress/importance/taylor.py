"""First order: what the loss changes by, to first order, if a channel is removed."""

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
