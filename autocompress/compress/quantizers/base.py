"""What every weight quantizer is: a trainable map of a weight onto the values it may take."""

import abc
import dataclasses
import math
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn

from autocompress.analysis.refusals import LayerKind
from autocompress.compress.codes import StoredWeight
from autocompress.compress.quantizers.blocks import Blocks, Granularity, GranularityKind

STEP_FLOOR: Final = 1e-8  # keeps a learned scale from reaching 0, where the grid would vanish


class WeightQuantizer(nn.Module, abc.ABC):
    """A trainable map of a weight onto few values.

    It is made for one weight, of one shape. What it learns (steps, codebooks) are its parameters;
    they have one dimension, so that weight decay leaves them alone.

    Args:
        weight: The weight to start from; not modified.
        bits: What a weight is stored in.
        granularity: What shares a scale.
        axis: Output-channel dimension of `weight`.
    """

    holds_zero = True  # whether 0.0 is always among the values, which masks need
    method = ""  # its name in the table, known once it is a layer's
    rate_price = 0.0  # what a bit is worth when weights are rounded, see `plan.LayerPlan`

    def __init__(self, weight: Tensor, bits: float, granularity: Granularity, axis: int) -> None:
        super().__init__()
        self.bits = bits
        self.axis = axis
        self.blocks = Blocks(shape=tuple(weight.shape), axis=axis, granularity=granularity)

    def forward(self, weight: Tensor, mask: Tensor | None = None) -> Tensor:
        """Move a weight onto the grid, straight-through for its gradient.

        Args:
            weight: Of the shape it was made for.
            mask: Same shape, bool; where it is False the result is exactly 0.

        Returns:
            Same shape; `freeze(weight, mask).dequantize()` holds the same float32 values.
        """
        return self.on_grid(weight if mask is None else weight * mask, mask)

    @abc.abstractmethod
    def on_grid(self, weight: Tensor, mask: Tensor | None) -> Tensor:
        """`forward` for a weight that is 0 already where `mask` is False."""

    @abc.abstractmethod
    def freeze(self, weight: Tensor, mask: Tensor | None = None) -> StoredWeight:
        """Store what `forward` gives for the weight as it is now."""

    @abc.abstractmethod
    def levels(self) -> Tensor | None:
        """All values a weight can take, ascending, one row per block of `blocks`: (B, K).

        None if weights cannot choose among them one by one.
        """

    def positions(self, weight: Tensor) -> tuple[Tensor, int] | None:
        """Where weights lie between the values they can take, differentiable.

        Args:
            weight: Of the shape the quantizer was made for, 0 where it is masked.

        Returns:
            Positions, shape (B, N), 0 at the smallest value of the weight's block and K - 1 at the
            largest, NaN where a short block is padded; and K. None if weights cannot choose among
            values one by one.
        """
        levels = self.levels()
        if levels is None:
            return None
        rows, n_values = self.blocks.rows(weight), levels.shape[1]
        above = torch.searchsorted(levels, rows.detach().contiguous()).clamp_(1, n_values - 1)
        low, high = levels.gather(1, above - 1), levels.gather(1, above)
        share = (rows - low) / (high - low).clamp_min(STEP_FLOOR)
        return self.without_padding(above - 1 + share.clamp(0.0, 1.0)), n_values

    def without_padding(self, rows: Tensor) -> Tensor:
        """Values by block, (B, N), with NaN where there is no weight."""
        if rows.numel() == math.prod(self.blocks.shape):
            return rows
        return rows.where(self.blocks.members(None).to(rows.device), torch.nan)


MakeQuantizer = Callable[[Tensor, float, Granularity, int, Tensor | None], WeightQuantizer]
WhyNot = Callable[[LayerKind, tuple[int, ...]], str]


def applies_everywhere(kind: LayerKind, shape: tuple[int, ...]) -> str:
    """`why_not` of a quantizer that any weight can take."""
    return ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class QuantizerSpec:
    """One row of the table of quantizers.

    Attributes:
        make: (weight, bits, granularity, axis, mask or None) -> quantizer of that weight.
        bits: What it can store a weight in.
        granularities: What can share a scale.
        why_not: (kind, shape) of a weight -> why it cannot take it; empty if it can.
        takes_masks: Whether masked weights can stay exactly 0.
        integer_bits: Those of `bits` at which every weight is an int8 number times the scale of its
            channel, whatever the weights are.
        packages: Distributions that it needs and that are not always installed; an extra of the
            same name installs each.
    """

    make: MakeQuantizer
    bits: tuple[float, ...]
    granularities: tuple[GranularityKind, ...]
    why_not: WhyNot = applies_everywhere
    takes_masks: bool = True
    integer_bits: tuple[float, ...] = ()
    packages: tuple[str, ...] = ()

    def has_integer_form(self, granularity: Granularity, bits: float) -> bool:
        """Whether a stored weight can be written as int8 codes times a scale per channel.

        Integer kernels compute with nothing else: with another weight a layer stays float, and so
        does its input.
        """
        return granularity.kind in ("channel", "tensor") and bits in self.integer_bits


def positive(scale: Tensor) -> Tensor:
    """A learned scale as it is used: its sign does not count, and it never reaches 0."""
    return scale.abs().clamp_min(STEP_FLOOR)
