"""The weights of a group's channels in one layer, one row per channel.

Dimension key: `C` channels, `n` weights of one channel in one layer, `G` repetitions of a channel
along a dimension (the gates of a recurrent layer; 1 elsewhere).
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autocompress.analysis.channel_group import Side
from autocompress.analysis.slots import PER_CHANNEL, TensorSlot, slots_of

Read: TypeAlias = Literal["weights", "batchnorm_scale"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChannelRows:
    """What a criterion scores: channels of one layer.

    Attributes:
        weight: Shape (C, n).
        fact: What the data says about each weight, shape (C, n); None unless the criterion needs
            it.
        group: Name of the channel group.
    """

    weight: Tensor
    fact: Tensor | None
    group: str


def scored_slots(layer: nn.Module, side: Side, reads: Read) -> tuple[TensorSlot, ...]:
    """Where a criterion looks for one side's channels of a layer; empty if nowhere.

    Args:
        layer: Any.
        side: Which channels.
        reads: `weights` for matrices and kernels, `batchnorm_scale` for the scale of a batch-norm.
    """
    if reads == "weights":
        slots = () if isinstance(layer, PER_CHANNEL) else slots_of(layer, side)
        return tuple(slot for slot in slots if getattr(layer, slot.tensor).ndim >= 2)
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):
        return tuple(slot for slot in slots_of(layer, side) if slot.tensor == "weight")
    return ()


def rows_of(
    slots: Iterable[TensorSlot], tensors: Mapping[str, Tensor], local: NDArray[np.int64]
) -> Tensor:
    """Bring channels of a layer to the front.

    The row of a hidden unit of a recurrent layer holds what all its gates read, and what reads it.

    Args:
        slots: Where the channels lie.
        tensors: Name in a slot -> tensor of the shape it has in the layer.
        local: Channels of the layer, shape (C,).

    Returns:
        Shape (C, n).
    """
    parts = [_rows_at(slot, tensors[slot.tensor].movedim(slot.dim, 0), local) for slot in slots]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _rows_at(slot: TensorSlot, tensor: Tensor, local: NDArray[np.int64]) -> Tensor:
    """Rows of channels whose indices lie along the first dimension: (G * width, ...) -> (C, n)."""
    if slot.n_repeats == 1:
        # A copy is spared only where sums run in the same order without it, down to the last bit
        is_whole = tensor.is_contiguous() and np.array_equal(local, np.arange(slot.width))
        rows = tensor if is_whole else tensor[torch.from_numpy(local % slot.width)]
        return rows.reshape(len(local), -1)
    shifts = np.arange(slot.n_repeats, dtype=np.int64) * slot.width
    return tensor[torch.from_numpy(local[:, None] % slot.width + shifts)].flatten(1)  # (C, G·…)
