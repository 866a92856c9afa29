"""Codebooks: a weight is one of a few values that need not be evenly spaced, times a scale.

Dimension key: `C` channels, `B` blocks that share a scale, `N` weights of a block, `K` entries of
the codebook.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from autocompress.compress.codes import CodebookTensor
from autocompress.compress.quantizers.base import WeightQuantizer, positive
from autocompress.compress.quantizers.blocks import Granularity

_MAX_COUNTED = 64  # up to here counting the middles below a value is faster than searching them


def nearest_entries(ratio: Tensor, entries: Tensor) -> Tensor:
    """Index of the nearest entry of each value; the lower one in the middle of two.

    Args:
        ratio: Any shape.
        entries: Shape (K,), ascending.

    Returns:
        Indices of the shape of `ratio`.
    """
    ratio, middles = ratio.detach(), (entries[1:] + entries[:-1]) / 2
    if len(middles) > _MAX_COUNTED or ratio.device.type != "cpu":
        return torch.bucketize(ratio.contiguous(), middles)
    index, is_above = torch.zeros_like(ratio), torch.empty_like(ratio)
    for middle in middles.tolist():
        index += torch.gt(ratio, middle, out=is_above)
    return index.long()


def look_up(entries: Tensor, codes: Tensor) -> Tensor:
    """`entries[codes]`, about three times as fast."""
    return entries.index_select(0, codes.flatten()).reshape(codes.shape)


class RoundToCodebook(torch.autograd.Function):
    """x -> nearest entry to x / scale, times scale.

    The gradient of an entry is the sum over its weights (Han et al. 2016), that of `scale` is as
    LSQ's, and `x` gets it straight through, unless `clips` and x lies outside the codebook.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, entries: Tensor, scale: Tensor, clips: bool, rates: tuple[float, float]
    ) -> Tensor:
        """Look up, and keep what the gradients need; `rates` scale the gradients of both."""
        ratio = x / scale
        codes = nearest_entries(ratio, entries)
        ctx.save_for_backward(ratio, codes, entries, scale)
        ctx.settings = clips, rates
        return look_up(entries, codes) * scale

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, entries and scale, where they are asked for."""
        ratio, codes, entries, scale = ctx.saved_tensors
        clips, (entry_rate, scale_rate) = ctx.settings
        grad_x, grad_entries, grad_scale = grad, None, None
        is_inside = None
        if clips:
            is_inside = (ratio >= entries[0]) & (ratio <= entries[-1])
            grad_x = grad * is_inside
        if ctx.needs_input_grad[1]:
            per_entry = torch.zeros_like(entries)
            per_entry.scatter_add_(0, codes.flatten(), (grad * scale).flatten())
            grad_entries = per_entry * entry_rate
        if ctx.needs_input_grad[2]:
            values = look_up(entries, codes)
            slope = values - ratio if is_inside is None else values - ratio * is_inside
            grad_scale = (slope * grad).sum_to_size(scale.shape) * scale_rate
        return grad_x, grad_entries, grad_scale, None, None


class CodebookQuantizer(WeightQuantizer):
    """Entries of a codebook, times a learned scale per channel if the granularity says so.

    Args:
        weight: The weight to start from.
        bits: Nominal bits of a weight.
        granularity: `channel` for a scale per channel, `tensor` for one, which is that of the
            codebook where the codebook is learned.
        axis: Output-channel dimension.
        entries: The codebook to start from, in any order, without the pinned zero.
        scale: Shape (B,), or None for no scale at all.
        is_learned: Whether training changes the codebook.
        pins_zero: Whether 0 is one more entry that stays exactly 0, for masked weights.
    """

    codebook: Tensor
    scale: Tensor | None

    def __init__(
        self,
        weight: Tensor,
        bits: float,
        granularity: Granularity,
        axis: int,
        *,
        entries: Tensor,
        scale: Tensor | None,
        is_learned: bool,
        pins_zero: bool,
    ) -> None:
        super().__init__(weight, bits, granularity, axis)
        self.is_learned = is_learned
        self.pins_zero = pins_zero
        self.holds_zero = pins_zero or (not is_learned and bool((entries == 0).any()))
        self.scale = None if scale is None else nn.Parameter(scale.float())
        if is_learned:
            self.codebook = nn.Parameter(entries.float())
        else:
            self.register_buffer("codebook", entries.float())

    def entries(self) -> Tensor:
        """The codebook as it is now, ascending, with the pinned zero: (K,)."""
        zero = self.codebook.new_zeros(1 if self.pins_zero else 0)
        return torch.cat([self.codebook, zero]).sort().values

    def _scale_over(self, weight: Tensor) -> Tensor:
        """The scale, shaped to broadcast over `weight`."""
        if self.scale is None:
            return weight.new_ones([1] * weight.ndim)
        return self.blocks.broadcast(positive(self.scale))

    def on_grid(self, weight: Tensor, mask: Tensor | None) -> Tensor:
        """Weight on the grid, same shape."""
        entries = self.entries()
        entry_rate = (weight.numel() / len(entries)) ** -0.5
        widest = max(float(entries[-1].detach()), -float(entries[0].detach()), 1e-6)
        rates = entry_rate, (self.blocks.size * widest) ** -0.5
        values: Tensor = RoundToCodebook.apply(
            weight, entries, self._scale_over(weight), not self.is_learned, rates
        )
        return values

    def freeze(self, weight: Tensor, mask: Tensor | None = None) -> CodebookTensor:
        """Codes, codebook and scales of the weight as it is now."""
        with torch.no_grad():
            masked = weight if mask is None else weight * mask
            entries = self.entries()
            codes = nearest_entries(masked / self._scale_over(weight), entries)
            scale = entries.new_ones(self.blocks.n_channels)
            if self.scale is not None:
                scale = self.blocks.per_channel(positive(self.scale))[:, 0]
        return CodebookTensor(
            codes=codes.to(torch.uint8).cpu().numpy(),
            codebook=entries.cpu().numpy(),
            scale=scale.cpu().numpy(),
            axis=self.axis,
            bits=max(1, math.ceil(math.log2(len(entries)))),
        )

    def levels(self) -> Tensor:
        """All values of each block, (B, K)."""
        entries = self.entries().detach()
        n_blocks = self.blocks.n_channels if self.blocks.granularity.kind == "channel" else 1
        if self.scale is None:
            return entries.repeat(n_blocks, 1)
        return entries * positive(self.scale.detach())[:, None]


def n_entries(bits: float, pins_zero: bool) -> int:
    """Entries of a codebook, K: 2**bits, three for ternary weights.

    A pinned zero is one of them, but for binary weights, where it comes on top of the two.
    """
    if bits < 2:
        return 3 if bits > 1 or pins_zero else 2
    return int(2**bits)
