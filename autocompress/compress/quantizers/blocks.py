"""Which weights share a scale: those of a channel, of the whole tensor, or of a group.

Dimension key: `C` output channels along `axis`, `G` blocks of a channel, `B` all blocks, `N`
weights of a block.
"""

import dataclasses
import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

GranularityKind = Literal["channel", "tensor", "group"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Granularity:
    """What shares a scale.

    Attributes:
        kind: All of an output channel, all of the tensor, or `group_size` in a row of a channel.
        group_size: Weights of a group; None for the other kinds.
    """

    kind: GranularityKind = "channel"
    group_size: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """How the weights of one tensor fall into blocks that share a scale.

    The weights of a channel, flattened in C order with `axis` in front, form `G` blocks; the last
    one may be shorter.

    Attributes:
        shape: Of the tensor.
        axis: Its output-channel dimension.
        granularity: What shares a scale.
    """

    shape: tuple[int, ...]
    axis: int
    granularity: Granularity

    @property
    def n_channels(self) -> int:
        """C."""
        return self.shape[self.axis]

    @property
    def channel_size(self) -> int:
        """Weights of one output channel."""
        return math.prod(self.shape) // self.n_channels

    @property
    def size(self) -> int:
        """Weights that share a scale, N."""
        if self.granularity.kind == "tensor":
            return math.prod(self.shape)
        return self.granularity.group_size or self.channel_size

    @property
    def n_per_channel(self) -> int:
        """Blocks of one channel, G; 1 where the tensor is one block."""
        return 1 if self.granularity.kind == "tensor" else -(-self.channel_size // self.size)

    def rows(self, tensor: Tensor) -> Tensor:
        """The blocks as rows, (B, N), for fitting scales; a short last block is padded by zeros."""
        if self.granularity.kind == "tensor":
            return tensor.reshape(1, -1)
        channels = tensor.movedim(self.axis, 0).flatten(1)  # (C, G·N or less)
        n_missing = self.n_per_channel * self.size - self.channel_size
        if n_missing:
            channels = F.pad(channels, (0, n_missing))
        return channels.reshape(-1, self.size)

    def view(self, tensor: Tensor) -> Tensor:
        """The tensor in the shape that `broadcast` scales fit: as it is, or (B, N) for groups."""
        return self.rows(tensor) if self.granularity.kind == "group" else tensor

    def broadcast(self, scale: Tensor) -> Tensor:
        """Scales, shape (B,), shaped to broadcast over a `view`."""
        if self.granularity.kind == "group":
            return scale[:, None]
        return scale.reshape([-1 if dim == self.axis else 1 for dim in range(len(self.shape))])

    def restore(self, view: Tensor) -> Tensor:
        """The inverse of `view`."""
        if self.granularity.kind != "group":
            return view
        channels = view.reshape(self.n_channels, -1)[:, : self.channel_size]
        moved = [self.n_channels, *(n for d, n in enumerate(self.shape) if d != self.axis)]
        return channels.reshape(moved).movedim(0, self.axis)

    def per_channel(self, scale: Tensor) -> Tensor:
        """Scales, shape (B,), as (C, G): the one scale of a tensor is repeated."""
        if self.granularity.kind == "tensor":
            return scale.reshape(1, 1).repeat(self.n_channels, 1)
        return scale.reshape(self.n_channels, self.n_per_channel)

    def members(self, mask: Tensor | None) -> Tensor:
        """Which entries of `rows` are weights that `mask` keeps, (B, N) bool; padding is not."""
        return self.rows(torch.ones(self.shape, dtype=torch.bool) if mask is None else mask)
