"""Binary weights: a sign times a learned scale (BinaryConnect, Courbariaux 2015; XNOR-Net).

Dimension key: `B` blocks that share a scale, `N` weights of a block.
"""

from typing import Any

import torch
from torch import Tensor

from autocompress.compress.quantizers.base import STEP_FLOOR


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
