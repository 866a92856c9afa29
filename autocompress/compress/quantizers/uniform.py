"""Symmetric integer grids with a learned step, 1-8 bits (LSQ; Esser et al. 2020).

Dimension key: `B` blocks that share a step, `N` weights of a block, `K` values of a grid.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from autocompress.compress.codes import GridTensor, QuantizedTensor
from autocompress.compress.quantizers.base import (
    STEP_FLOOR,
    QuantizerSpec,
    WeightQuantizer,
    positive,
)
from autocompress.compress.quantizers.blocks import Granularity
from autocompress.compress.quantizers.grid import RoundToGrid, best_steps, code_limits
from autocompress.technique import BINARY_BITS, TERNARY_BITS


def best_ternary_steps(rows: Tensor) -> Tensor:
    """Scale per row with the least squared error over all ternary codes.

    With the k largest magnitudes kept, the best scale is their mean m and the error is
    |row|² - k·m²; sorting gives it for every k. The optimal codes are the nearest ones, so rounding
    to a grid of this step finds them. The paper's threshold of 0.7 mean magnitudes approximates it.

    Args:
        rows: Shape (B, N).

    Returns:
        Shape (B,), positive.
    """
    magnitudes = rows.detach().double().abs().sort(dim=1, descending=True).values
    n_kept = torch.arange(1, rows.shape[1] + 1, device=rows.device)
    means = magnitudes.cumsum(dim=1) / n_kept  # (B, N)
    best = (n_kept * means.square()).argmax(dim=1, keepdim=True)
    return means.gather(1, best)[:, 0].float().clamp_min(STEP_FLOOR)


def best_binary_scales(rows: Tensor, members: Tensor) -> Tensor:
    """Scale per row with the least squared error: the mean magnitude (Rastegari et al. 2016).

    Args:
        rows: Shape (B, N).
        members: Same shape, bool: which entries count.

    Returns:
        Shape (B,), positive.
    """
    total = (rows.detach().float().abs() * members).sum(dim=1)
    return (total / members.sum(dim=1).clamp_min(1)).clamp_min(STEP_FLOOR)


class RoundToSign(torch.autograd.Function):
    """x -> sign(x) * scale, 1 for 0, and 0 where `kept` is False.

    The gradient passes straight through to `x`; `scale` gets that of LSQ's step, which is the
    true one here.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, kept: Tensor | None, grad_scale: float
    ) -> Tensor:
        """Take signs, and keep what the gradients need."""
        codes = torch.where(x >= 0, 1.0, -1.0).to(x.dtype)
        codes = codes if kept is None else codes * kept
        ctx.save_for_backward(codes, scale)
        ctx.grad_scale = grad_scale
        return codes * scale

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x and scale."""
        codes, scale = ctx.saved_tensors
        return grad, (codes * grad).sum_to_size(scale.shape) * ctx.grad_scale, None, None


def best_uniform_steps(rows: Tensor, members: Tensor, bits: float) -> Tensor:
    """Step per row with the least squared rounding error at 1, 1.58 or 2-8 bits.

    Args:
        rows: Shape (B, N).
        members: Same shape, bool: which entries are weights that are kept; others must be 0.
        bits: 2-8, 1.58 or 1.

    Returns:
        Shape (B,), positive.
    """
    if bits == BINARY_BITS:
        return best_binary_scales(rows, members)
    return best_ternary_steps(rows) if bits == TERNARY_BITS else best_steps(rows, int(bits))


class UniformQuantizer(WeightQuantizer):
    """Integers times a learned step: 2-8 bits, ternary (-1, 0, 1) or binary (-1, 1).

    The step starts where the squared rounding error is least. A binary weight that is masked is 0.
    """

    step: Tensor

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
        self.keep_step_(self.first_step(rows, self.blocks.members(mask).to(rows.device)))

    def first_step(self, rows: Tensor, members: Tensor) -> Tensor:
        """Step per block, (B,), with the least squared error for `rows`, (B, N)."""
        return best_uniform_steps(rows, members, self.bits)

    def keep_step_(self, step: Tensor) -> None:
        """Store the step as what training changes."""
        self.step = nn.Parameter(step)

    def on_grid(self, weight: Tensor, mask: Tensor | None) -> Tensor:
        """Weight on the grid, same shape."""
        low, high = code_limits(self.bits)
        view, step = self.blocks.view(weight), self.blocks.broadcast(positive(self.step))
        grad_scale = (self.blocks.size * high) ** -0.5
        values: Tensor
        if self.bits == BINARY_BITS:
            kept = None if mask is None else self.blocks.view(mask)
            values = RoundToSign.apply(view, step, kept, grad_scale)
        else:
            values = RoundToGrid.apply(view, step, low, high, grad_scale)
        return self.blocks.restore(values)

    def freeze(self, weight: Tensor, mask: Tensor | None = None) -> QuantizedTensor | GridTensor:
        """Integer codes and scales of the weight as it is now."""
        with torch.no_grad():
            codes = self._codes(weight if mask is None else weight * mask, mask).cpu()
            scale = self.blocks.per_channel(positive(self.step)).float().cpu().numpy()
        bits = max(2, math.ceil(self.bits))
        if self.blocks.granularity.kind != "group":
            return QuantizedTensor(
                codes=codes.to(torch.int8).numpy(), scale=scale[:, 0], axis=self.axis, bits=bits
            )
        zero_point = 2 ** (bits - 1)
        return GridTensor(
            codes=(codes + zero_point).to(torch.uint8).numpy(),
            scale=scale,
            zero_point=np.full(scale.shape, zero_point, np.uint8),
            block_size=self.blocks.size,
            axis=self.axis,
            bits=bits,
        )

    def _codes(self, weight: Tensor, mask: Tensor | None) -> Tensor:
        """Integers of the weight's shape, as floats."""
        if self.bits == BINARY_BITS:
            signs = torch.where(weight >= 0, 1.0, -1.0)
            return signs if mask is None else signs * mask
        view, step = self.blocks.view(weight), self.blocks.broadcast(positive(self.step))
        return self.blocks.restore((view / step).round().clamp(*code_limits(self.bits)))

    def levels(self) -> Tensor:
        """All values of each block, (B, K)."""
        low, high = code_limits(self.bits)
        stride = 2 if self.bits == BINARY_BITS else 1
        step = positive(self.step.detach())
        codes = torch.arange(low, high + 1, stride, dtype=step.dtype, device=step.device)
        return codes * step[:, None]

    def positions(self, weight: Tensor) -> tuple[Tensor, int]:
        """As for every quantizer; the step has a derivative, too, scaled as in rounding."""
        low, high = code_limits(self.bits)
        stride = 2 if self.bits == BINARY_BITS else 1
        grad_scale = (self.blocks.size * high) ** -0.5
        step = positive(self.step)
        step = step.detach() + (step - step.detach()) * grad_scale
        codes = self.blocks.rows(weight) / step[:, None]
        n_values = (high - low) // stride + 1
        return self.without_padding((codes.clamp(low, high) - low) / stride), n_values


UNIFORM = QuantizerSpec(
    make=UniformQuantizer,
    bits=(8, 7, 6, 5, 4, 3, 2, TERNARY_BITS, BINARY_BITS),
    granularities=("channel", "tensor", "group"),
    integer_bits=(8, 7, 6, 5, 4, 3, 2, TERNARY_BITS, BINARY_BITS),
)
