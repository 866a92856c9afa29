"""Many channels told apart by few passes: each is named by the bits of its index.

Where every reached channel sees one channel of a producer, `2 log2(n)` examples tell which: in
each, the half of the channels is perturbed whose index has a bit set, or has it not (non-adaptive
group testing; Du & Hwang 2000). Where it sees a block of them, as with the channels of an attention
head, the bits that both halves reach are those of the block.

Dimension key: `n` probed channels, `b` bits of their indices, `C` channels that may be reached.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from autocompress.analysis.probed_model import Hits

LEAST = 32
"""Channels from which codes are cheaper than a look at each."""


def halves(channels: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Channels whose index has bit 0, has it not, has bit 1, ...; 2b arrays.

    >>> [half.tolist() for half in halves(np.array([5, 6, 7]))]
    [[5, 7], [6], [5, 6], [7]]
    """
    index = np.arange(len(channels))
    bits = (1 << np.arange(_n_bits(len(channels))))[:, None]
    has = (index & bits) > 0
    return [channels[half] for pair in zip(~has, has, strict=True) for half in pair]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Decoded:
    """What codes say.

    Attributes:
        hits: What is reached -> shape (n, C), by which channel in which channel.
        doubtful: Indices of channels whose hits are to be compared with their own, because a
            block's channels were taken to reach all alike; empty if nothing was taken for granted.
    """

    hits: Hits
    doubtful: tuple[int, ...]


def decode(coded: Hits, n_channels: int) -> Decoded | None:
    """Read codes.

    Args:
        coded: What is reached -> shape (2b, C), in the order of `halves`.
        n_channels: n.

    Returns:
        None if they contradict each other.
    """
    index = np.arange(n_channels)
    weights = 1 << np.arange(_n_bits(n_channels))
    hits: Hits = {}
    blocks: set[tuple[int, int]] = set()
    for key, rows in coded.items():
        without, having = rows[0::2], rows[1::2]  # (b, C)
        is_reached = (without | having).any(axis=0)
        if not (without | having)[:, is_reached].all():
            return None
        value = (having & ~without).T @ weights  # (C,)
        free = (having & without).T @ weights
        hits[key] = ((index[:, None] & ~free) == value) & is_reached  # (n, C)
        blocks |= set(zip(value[is_reached].tolist(), free[is_reached].tolist(), strict=True))
    doubtful: set[int] = set()
    for value_of, free_of in blocks:
        if free_of:
            inside = np.flatnonzero((index & ~free_of) == value_of)
            if len(inside):
                doubtful |= {int(inside[i]) for i in (0, len(inside) // 2, -1)}
    return Decoded(hits=hits, doubtful=tuple(sorted(doubtful)))


def agree(decoded: Decoded, own: Hits) -> bool:
    """Whether the doubtful channels reach what codes say.

    Args:
        decoded: What codes say.
        own: What is reached -> shape (doubtful, C), each channel perturbed by itself.
    """
    chosen = list(decoded.doubtful)
    return all(np.array_equal(own[key], hit[chosen]) for key, hit in decoded.hits.items())


def _n_bits(n_channels: int) -> int:
    return max(1, (n_channels - 1).bit_length())
