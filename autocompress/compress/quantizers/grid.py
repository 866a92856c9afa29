"""Integer grids with a learned step: the best step to start from, and gradients through rounding.

Dimension key: `B` blocks that share a step, `N` weights of a block.
"""

from typing import Any

import torch
from torch import Tensor

from autocompress.compress.quantizers.base import STEP_FLOOR
from autocompress.technique import BINARY_BITS, TERNARY_BITS

_STEP_CANDIDATES = 80


def code_limits(bits: float) -> tuple[int, int]:
    """Smallest and largest integer of a signed grid.

    At 8 bits the grid is symmetric, so that folding a negative batch-norm scale into it (which
    flips all signs) stays inside int8. Binary weights use the ends of their grid only.

    >>> code_limits(1), code_limits(1.58), code_limits(2), code_limits(8)
    ((-1, 1), (-1, 1), (-2, 1), (-127, 127))
    """
    if bits in (BINARY_BITS, TERNARY_BITS):
        return -1, 1
    return (-127, 127) if bits == 8 else (-(2 ** (int(bits) - 1)), 2 ** (int(bits) - 1) - 1)


def best_steps(weight: Tensor, bits: int) -> Tensor:
    """Step per row with the least squared rounding error, by a search over a grid of steps.

    Args:
        weight: Shape (B, ...).
        bits: 2-8.

    Returns:
        Steps of shape (B,), positive.
    """
    low, high = code_limits(bits)
    rows = weight.detach().flatten(1).float()  # (B, N)
    widest = rows.abs().amax(dim=1).clamp_min(STEP_FLOOR) / max(high, 1)
    best = widest.clone()
    best_error = torch.full_like(widest, float("inf"))
    for share in torch.linspace(1.0 / _STEP_CANDIDATES, 1.0, _STEP_CANDIDATES):
        step = widest * share
        rounded = (rows / step[:, None]).round().clamp(low, high) * step[:, None]
        error = (rounded - rows).square().sum(dim=1)
        is_better = error < best_error
        best = torch.where(is_better, step, best)
        best_error = torch.where(is_better, error, best_error)
    return best.clamp_min(STEP_FLOOR)


class RoundToGrid(torch.autograd.Function):
    """x -> clamp(round(x / step), low, high) * step, with LSQ's gradients (Esser et al. 2020).

    The gradient reaches `x` where it is inside the grid, and `step` everywhere, scaled by
    `grad_scale`. The limits are integers, or tensors of integers that broadcast over `x`.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, step: Tensor, low: Any, high: Any, grad_scale: float
    ) -> Tensor:
        """Round, and keep what the gradients need."""
        ratio = x / step
        codes = ratio.round().clamp_(low, high)
        ctx.save_for_backward(ratio, codes, step)
        ctx.limits = (low, high, grad_scale)
        return codes * step

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x and step."""
        ratio, codes, step = ctx.saved_tensors
        low, high, grad_scale = ctx.limits
        is_inside = (ratio >= low) & (ratio <= high)
        grad_x = grad * is_inside if ctx.needs_input_grad[0] else None
        per_value = torch.where(is_inside, codes - ratio, codes) * grad
        grad_step = per_value.sum_to_size(step.shape) * grad_scale
        return grad_x, grad_step, None, None, None


class RoundToOneGrid(torch.autograd.Function):
    """`RoundToGrid` for large tensors that share one step, in about half its time.

    The gradient reaches `x` where rounding alone moves it, up to half a step beyond the limits;
    that of `step` is LSQ's: the sum of (result - x) / step there and of the codes elsewhere.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, step: Tensor, low: int, high: int, grad_scale: float
    ) -> Tensor:
        """Round; what the gradients need is what others keep anyway, input and result."""
        rounded = (x / step).round_().clamp_(low, high).mul_(step)
        ctx.save_for_backward(x, rounded, step)
        ctx.limits = (low, high, grad_scale)
        return rounded

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x and step."""
        x, rounded, step = ctx.saved_tensors
        low, high, grad_scale = ctx.limits
        width = float(step)
        # `hardtanh` passes a gradient between two numbers, in one pass and without a mask
        grad_x = torch.ops.aten.hardtanh_backward(
            grad, x, (low - 0.5) * width, (high + 0.5) * width
        )
        per_value = (grad - grad_x).mul_(rounded)  # 0 inside
        per_value.addcmul_(grad_x, rounded - x)  # 0 outside
        total = per_value.sum(dtype=torch.float32)
        return grad_x, total / step * grad_scale, None, None, None
