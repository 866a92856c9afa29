"""Integer grids that need not be centred on zero: a learned step and a fixed zero point.

Dimension key: `B` blocks that share a grid, `N` weights of a block.
"""

from typing import Final

import torch
from torch import Tensor, nn

from autocompress.compress.codes import GridTensor
from autocompress.compress.quantizers.base import (
    STEP_FLOOR,
    QuantizerSpec,
    WeightQuantizer,
    positive,
)
from autocompress.compress.quantizers.blocks import Granularity
from autocompress.compress.quantizers.grid import RoundToGrid

# A code minus its zero point takes one bit more than the code: at 8 bits it can leave int8.
INTEGER_BITS: Final = (7, 6, 5, 4, 3, 2)
_SHARES = 80


def best_asymmetric_grids(rows: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Step and zero point per row with the least squared error over shrunken ranges.

    The range of a row, widened to hold 0 (which then falls on an integer; Jacob et al. 2018), is
    shrunk by shares of both ends; the full range is among them.

    Args:
        rows: Shape (B, N).
        bits: 2-8.

    Returns:
        Steps, positive, and zero points in [0, 2**bits - 1], integers as floats; both (B,).
    """
    top = 2**bits - 1
    rows = rows.detach().float()
    low, high = rows.amin(dim=1).clamp_max(0.0), rows.amax(dim=1).clamp_min(0.0)
    best_step, best_zero = torch.ones_like(low), torch.zeros_like(low)
    best_error = torch.full_like(low, float("inf"))
    for share in torch.linspace(1.0 / _SHARES, 1.0, _SHARES):
        step = ((high - low) * share / top).clamp_min(STEP_FLOOR)
        zero = (-low * share / step).round().clamp(0, top)
        codes = (rows / step[:, None]).round().clamp(-zero[:, None], top - zero[:, None])
        error = (codes * step[:, None] - rows).square().sum(dim=1)
        is_better = error < best_error
        best_step = torch.where(is_better, step, best_step)
        best_zero = torch.where(is_better, zero, best_zero)
        best_error = torch.where(is_better, error, best_error)
    return best_step, best_zero


class AsymmetricQuantizer(WeightQuantizer):
    """Integers minus a zero point, times a learned step."""

    step: Tensor
    zero_point: Tensor

    def __init__(
        self,
        weight: Tensor,
        bits: float,
        granularity: Granularity,
        axis: int,
        mask: Tensor | None = None,
    ) -> None:
        super().__init__(weight, bits, granularity, axis)
        rows = self.blocks.rows(weight.detach() if mask is None else weight.detach() * mask)
        step, zero_point = self.first_grids(rows)
        self.step = nn.Parameter(step)
        self.register_buffer("zero_point", zero_point)

    def first_grids(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Step and zero point per block, (B,) each, for `rows`, (B, N)."""
        return best_asymmetric_grids(rows, int(self.bits))

    def _limits(self) -> tuple[Tensor, Tensor]:
        """Smallest and largest code minus zero point, shaped to broadcast over a view."""
        zero = self.blocks.broadcast(self.zero_point)
        return -zero, 2 ** int(self.bits) - 1 - zero

    def on_grid(self, weight: Tensor, mask: Tensor | None) -> Tensor:
        """Weight on the grid, same shape; 0 stays 0."""
        low, high = self._limits()
        view, step = self.blocks.view(weight), self.blocks.broadcast(positive(self.step))
        grad_scale = (self.blocks.size * 2 ** (int(self.bits) - 1)) ** -0.5
        return self.blocks.restore(RoundToGrid.apply(view, step, low, high, grad_scale))

    def freeze(self, weight: Tensor, mask: Tensor | None = None) -> GridTensor:
        """Codes, steps and zero points of the weight as it is now."""
        with torch.no_grad():
            view = self.blocks.view(weight if mask is None else weight * mask)
            codes = (view / self.blocks.broadcast(positive(self.step))).round()
            codes = codes.clamp(*self._limits()) + self.blocks.broadcast(self.zero_point)
            scale = self.blocks.per_channel(positive(self.step)).float()
        is_grouped = self.blocks.granularity.kind == "group"
        return GridTensor(
            codes=self.blocks.restore(codes).to(torch.uint8).cpu().numpy(),
            scale=scale.cpu().numpy(),
            zero_point=self.blocks.per_channel(self.zero_point).to(torch.uint8).cpu().numpy(),
            block_size=self.blocks.size if is_grouped else self.blocks.channel_size,
            axis=self.axis,
            bits=int(self.bits),
        )

    def levels(self) -> Tensor:
        """All values of each block, (B, K)."""
        step = positive(self.step.detach())
        codes = torch.arange(2 ** int(self.bits), dtype=step.dtype, device=step.device)
        return (codes - self.zero_point[:, None]) * step[:, None]


UNIFORM_ASYMMETRIC = QuantizerSpec(
    make=AsymmetricQuantizer,
    bits=(8, 7, 6, 5, 4, 3, 2),
    granularities=("channel", "tensor", "group"),
    integer_bits=INTEGER_BITS,
)
