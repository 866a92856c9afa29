"""Second order: what the loss changes by at a minimum, where the gradient vanishes."""

from torch import Tensor


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
