"""Dynamic fixed point: integers times a power of two per block (Courbariaux et al. 2015).

Multiplying by such a scale is a shift of bits, which is why small processors want it.

Dimension key: `B` blocks that share a scale, `N` weights of a block.
"""

import torch
from torch import Tensor

from autocompress.compress.quantizers.base import STEP_FLOOR, QuantizerSpec
from autocompress.compress.quantizers.grid import code_limits
from autocompress.compress.quantizers.uniform import UniformQuantizer

_MIN_EXPONENT = -26  # the smallest power of two above STEP_FLOOR
_EXTRA_HALVINGS = 4  # a few outliers may be worth clipping to half the grid and less


def best_power_of_two_steps(rows: Tensor, bits: int) -> Tensor:
    """Power of two per row with the least squared rounding error.

    The largest tried covers the widest weight; each smaller one clips more and rounds finer.

    Args:
        rows: Shape (B, N).
        bits: 2-8.

    Returns:
        Steps of shape (B,), exact powers of two.
    """
    low, high = code_limits(bits)
    rows = rows.detach().float()
    widest = rows.abs().amax(dim=1).clamp_min(STEP_FLOOR) / high
    mantissa, exponent = torch.frexp(widest)  # widest = mantissa * 2**exponent, 0.5 <= mantissa < 1
    covering = exponent - (mantissa == 0.5).int()
    best = best_error = torch.empty(0)
    for n_halvings in range(bits + _EXTRA_HALVINGS):
        step = _power_of_two((covering - n_halvings).clamp_min(_MIN_EXPONENT))
        rounded = (rows / step[:, None]).round().clamp(low, high) * step[:, None]
        error = (rounded - rows).square().sum(dim=1)
        if n_halvings == 0:
            best, best_error = step, error
        is_better = error < best_error
        best = torch.where(is_better, step, best)
        best_error = torch.where(is_better, error, best_error)
    return best


def _power_of_two(exponent: Tensor) -> Tensor:
    """2**exponent, exactly: by the bits of a float32, as exp2 may be off by a rounding."""
    return ((exponent.int() + 127) << 23).view(torch.float32)


class FixedPointQuantizer(UniformQuantizer):
    """Integers times a power of two, which stays as it was chosen while the weights are trained."""

    def first_step(self, rows: Tensor, members: Tensor) -> Tensor:
        """Power of two per block, (B,), with the least squared error for `rows`, (B, N)."""
        return best_power_of_two_steps(rows, int(self.bits))

    def keep_step_(self, step: Tensor) -> None:
        """Store the step as a constant."""
        self.register_buffer("step", step)


FIXED_POINT = QuantizerSpec(
    make=FixedPointQuantizer,
    bits=(8, 7, 6, 5, 4, 3, 2),
    granularities=("channel", "tensor"),
    integer_bits=(8, 7, 6, 5, 4, 3, 2),
)
