"""Hashed weight sharing (HashedNets; Chen et al. 2015): positions share values by a hash.

Which value a weight has follows from its position, so only the values are stored. Fewer values than
weights, chosen without looking at the weights, need training: before it, little of the model is
left.

Dimension key: `n` weights of the tensor, `K` buckets.
"""

from typing import cast

import torch
from torch import Tensor, nn

from autocompress.analysis.refusals import LayerKind
from autocompress.compress.codes import HashedTensor, buckets
from autocompress.compress.quantizers.base import QuantizerSpec, WeightQuantizer
from autocompress.compress.quantizers.blocks import Granularity

_BITS_OF_VALUE = 16  # a value is a float16 in the file


def bucket_count(n_weights: int, bits: float) -> int:
    """Values that take as many bytes as `n_weights` weights of `bits` bits, K >= 1."""
    return max(1, round(n_weights * bits / _BITS_OF_VALUE))


def bucket_means(weight: Tensor, index: Tensor, n_buckets: int) -> Tensor:
    """Mean weight of each bucket, the value with the least squared error; 0 for an empty one.

    Args:
        weight: Any shape, n weights.
        index: Bucket of each weight in C order, shape (n,).
        n_buckets: K.

    Returns:
        Shape (K,).
    """
    flat = weight.detach().double().flatten()
    sums = flat.new_zeros(n_buckets).index_add_(0, index, flat)
    return (sums / torch.bincount(index, minlength=n_buckets).clamp_min(1)).float()


class HashedQuantizer(WeightQuantizer):
    """Values shared by a hash of the position. The weight only says where the values start.

    In training the values are what learns; the weight itself gets no gradient.
    """

    holds_zero = False
    index: Tensor

    def __init__(
        self,
        weight: Tensor,
        bits: float,
        granularity: Granularity,
        axis: int,
        mask: Tensor | None = None,
        seed: int = 0,
    ) -> None:
        assert mask is None, "the table of quantizers says that masks are not taken"
        super().__init__(weight, bits, granularity, axis)
        self.seed = seed
        n_buckets = bucket_count(weight.numel(), bits)
        index = torch.from_numpy(buckets(weight.numel(), n_buckets, seed)).to(weight.device)
        self.register_buffer("index", index, persistent=False)
        self.values = nn.Parameter(bucket_means(weight, index, n_buckets))

    def on_grid(self, weight: Tensor, mask: Tensor | None) -> Tensor:
        """The shared values at their positions, shape of the weight."""
        return self.values[self.index].reshape(weight.shape)

    def freeze(self, weight: Tensor, mask: Tensor | None = None) -> HashedTensor:
        """The values as they are now."""
        values = self.values.detach().float().cpu()
        return HashedTensor(
            shape=tuple(weight.shape),
            values=values.numpy().copy(),
            seed=self.seed,
            scale=torch.ones(self.blocks.n_channels).numpy(),
            axis=self.axis,
            bits=cast(int, self.bits),
        )

    def levels(self) -> None:
        """A weight cannot choose its value."""
        return


def why_not_hashed(kind: LayerKind, shape: tuple[int, ...]) -> str:
    """Why a weight cannot be hashed; empty if it can."""
    if kind == "recurrent":
        return (
            "runtimes store recurrent weights gate by gate in another order, "
            "and a hash of positions does not survive reordering"
        )
    return ""


HASHED = QuantizerSpec(
    make=HashedQuantizer,
    bits=(8, 7, 6, 5, 4, 3, 2, 1),
    granularities=("tensor",),
    why_not=why_not_hashed,
    takes_masks=False,  # positions are not stored, so zeros of one's own choice cannot be
)
