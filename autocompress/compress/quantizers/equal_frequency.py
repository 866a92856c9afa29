"""Equal-frequency codebooks: each entry stands for the same number of weights, and is their mean.

Dimension key: `n` weights of the tensor, `K` entries of the codebook.
"""

import torch
from torch import Tensor

from autocompress.compress.quantizers.base import STEP_FLOOR, QuantizerSpec
from autocompress.compress.quantizers.blocks import Blocks, Granularity
from autocompress.compress.quantizers.codebook import CodebookQuantizer, n_entries
from autocompress.technique import BINARY_BITS, TERNARY_BITS


def bin_means(values: Tensor, n_bins: int) -> Tensor:
    """Means of the bins between the quantiles, which hold equally many values (plus or minus one).

    Args:
        values: Shape (n,), n >= 1.
        n_bins: K; a bin that gets no value, as n < K, repeats a value of its neighbour.

    Returns:
        Ascending, shape (K,), float64.
    """
    ordered = values.detach().double().sort().values
    bounds = torch.arange(n_bins + 1, device=values.device) * len(ordered) // n_bins
    sums = torch.cat([ordered.new_zeros(1), ordered.cumsum(0)])[bounds].diff()
    counts = bounds.diff()
    neighbours = ordered[bounds[:-1].clamp_max(len(ordered) - 1)]
    return torch.where(counts > 0, sums / counts.clamp_min(1), neighbours).sort().values


class EqualFrequencyQuantizer(CodebookQuantizer):
    """A codebook that starts from the means of equal-frequency bins, and is learned.

    With a scale per channel, weights are divided by their channel's root mean square first.
    """

    def __init__(
        self,
        weight: Tensor,
        bits: float,
        granularity: Granularity,
        axis: int,
        mask: Tensor | None = None,
    ) -> None:
        blocks = Blocks(shape=tuple(weight.shape), axis=axis, granularity=granularity)
        rows, members = blocks.rows(weight.detach().float()), blocks.members(mask)
        members = members.to(rows.device)
        scale = None
        if granularity.kind == "channel":
            energy = (rows.square() * members).sum(dim=1) / members.sum(dim=1).clamp_min(1)
            scale = energy.sqrt().clamp_min(STEP_FLOOR)
            rows = rows / scale[:, None]
        values = rows[members] if members.any() else rows.new_zeros(1)
        n_free = n_entries(bits, mask is not None) - (mask is not None)
        super().__init__(
            weight,
            bits,
            granularity,
            axis,
            entries=bin_means(values, n_free),
            scale=scale,
            is_learned=True,
            pins_zero=mask is not None,
        )


EQUAL_FREQUENCY = QuantizerSpec(
    make=EqualFrequencyQuantizer,
    bits=(8, 7, 6, 5, 4, 3, 2, TERNARY_BITS, BINARY_BITS),
    granularities=("channel", "tensor"),
)
