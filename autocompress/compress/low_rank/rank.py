"""Ranks: how many components a share of the full rank keeps."""

from typing import TypeAlias

Shape: TypeAlias = tuple[int, ...]


def kept_rank(full_rank: int, rank_ratio: float) -> int:
    """The rank that a share of the full one keeps, at least 1.

    >>> kept_rank(64, 0.25), kept_rank(8, 0.01)
    (16, 1)
    """
    return max(1, round(rank_ratio * full_rank))


def check_rank(rank: int, full_rank: int, shape: Shape) -> None:
    """Raise a ValueError unless `rank` is one that a weight of this shape can have."""
    if not 1 <= rank <= full_rank:
        msg = f"`rank` must be in [1, {full_rank}] for a weight of shape {shape}, but got {rank}."
        raise ValueError(msg)
