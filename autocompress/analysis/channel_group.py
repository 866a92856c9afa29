"""What a channel group is: channels cut together, and everything that shrinks with them."""

import dataclasses
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Side: TypeAlias = Literal["out", "in"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GroupMember:
    """One side of one layer that loses channels with the group.

    Attributes:
        layer: Qualified name.
        side: `out` if output channels are cut, `in` if input channels are.
        local: Channel indices in this layer, shape (n,); `slots.slots_of` says where in its
            tensors they lie.
        root: The group's channel each of them belongs to, shape (n,).
    """

    layer: str
    side: Side
    local: NDArray[np.int64]
    root: NDArray[np.int64]

    def indices_of(self, channels: NDArray[np.int64]) -> NDArray[np.int64]:
        """This layer's indices that fall when the group's `channels` do, sorted."""
        falls = np.zeros(1 + self.root.max(initial=0), dtype=np.bool_)
        falls[channels[channels < len(falls)]] = True
        return np.sort(self.local[falls[self.root]])


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AttributePatch:
    """A number that code reads and that shrinks with a group, such as `num_heads`.

    Attributes:
        module: Qualified name of the module that holds it; empty for the model itself.
        attribute: Its name.
        per_channel: What one channel of the group counts for: the new value is this times the
            number of channels kept.
    """

    module: str
    attribute: str
    per_channel: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChannelGroup:
    """Channels that are cut together.

    A channel of a group can stand for several of a layer: an attention head for all channels of
    its width, a feature map for every pixel after flattening.

    Attributes:
        name: Qualified name of the first layer that produces them.
        n_channels: How many there are.
        members: Everything that shrinks with them.
        block: Channels that one of them owns in the layer `name`: the width of a head.
        attributes: Numbers that shrink with them.
    """

    name: str
    n_channels: int
    members: tuple[GroupMember, ...]
    block: int = 1
    attributes: tuple[AttributePatch, ...] = ()
