"""Weight sharing by k-means (Han et al. 2016): a codebook is fitted, then learned.

Dimension key: `B` blocks that share a scale, `N` weights of a block, `n` values to cluster, `K`
entries of the codebook.
"""

import dataclasses

import torch
from torch import Tensor

from autocompress.compress.quantizers.base import STEP_FLOOR, QuantizerSpec
from autocompress.compress.quantizers.blocks import Blocks, Granularity
from autocompress.compress.quantizers.codebook import (
    CodebookQuantizer,
    look_up,
    n_entries,
    nearest_entries,
)
from autocompress.compress.quantizers.equal_frequency import bin_means
from autocompress.compress.quantizers.uniform import best_uniform_steps
from autocompress.technique import BINARY_BITS, TERNARY_BITS

_MAX_SWEEPS = 100
_SCALE_ROUNDS = 3


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Points:
    """Values to cluster, with running sums of importance, so that a sweep costs O(K log n)."""

    values: Tensor  # (n,), ascending
    mass: Tensor  # (n + 1,), of the importances
    moment: Tensor  # (n + 1,), of importance * value
    energy: float  # total of importance * value²

    def clusters(self, entries: Tensor) -> tuple[Tensor, Tensor]:
        """Mass and moment of the values nearest to each entry, (K,) each."""
        cuts = torch.searchsorted(self.values, (entries[1:] + entries[:-1]) / 2, right=True)
        bounds = torch.cat([cuts.new_zeros(1), cuts, cuts.new_full((1,), len(self.values))])
        return self.mass[bounds].diff(), self.moment[bounds].diff()


def sort_points(values: Tensor, importance: Tensor) -> Points:
    """Values to cluster, (n,), and what a squared error of each counts, (n,), >= 0; n >= 1."""
    ordered, order = values.double().sort()
    weights = importance.double()[order]
    zero = ordered.new_zeros(1)
    return Points(
        values=ordered,
        mass=torch.cat([zero, weights.cumsum(0)]),
        moment=torch.cat([zero, (weights * ordered).cumsum(0)]),
        energy=float((weights * ordered.square()).sum()),
    )


def lloyd(points: Points, start: Tensor, zero_index: int | None = None) -> tuple[Tensor, float]:
    """One-dimensional k-means by Lloyd's iterations, until no value changes its cluster.

    An entry that nothing is nearest to stays where it is. Entries keep their order.

    Args:
        points: What to cluster.
        start: Entries to start from, ascending, shape (K,).
        zero_index: Entry that stays what it is; None for none.

    Returns:
        Entries, ascending, (K,) float64, and the sum of squared errors, never above the start's.
    """
    entries = start.double()
    mass, moment = points.clusters(entries)
    for _ in range(_MAX_SWEEPS):
        moves = mass > 0
        if zero_index is not None:
            moves[zero_index] = False
        entries = torch.where(moves, moment / torch.where(moves, mass, 1.0), entries)
        last_mass = mass
        mass, moment = points.clusters(entries)
        if torch.equal(mass, last_mass):
            break
    return entries, points.energy + float((mass * entries.square() - 2 * moment * entries).sum())


def fit_kmeans(
    rows: Tensor, members: Tensor, bits: float, *, pins_zero: bool, has_scales: bool
) -> tuple[Tensor, Tensor]:
    """Codebook, and scale per row, of little squared error: never above the best uniform grid's.

    Rows are divided by their best uniform steps, so that the integers are one of the codebooks to
    start from; a value counts by the square of its row's step, so that the error is that of the
    weights. The best of three starts is kept; scales are then refitted in turn with the codebook.

    Args:
        rows: Shape (B, N); entries that are not `members` must be 0.
        members: Same shape, bool: the weights to cluster.
        bits: 2-8, 1.58 or 1.
        pins_zero: Whether one entry stays 0.
        has_scales: Whether rows have scales of their own; without, B must be 1.

    Returns:
        Entries, ascending, (K,), a pinned zero included, and scales, (B,); float64.
    """
    rows = rows.double()
    scale = best_uniform_steps(rows.float(), members, bits).double()
    size = n_entries(bits, pins_zero)
    starts = _starts((rows / scale[:, None])[members], bits, size, pins_zero)
    if not members.any():
        return starts[0], scale
    points = _scaled_points(rows, members, scale)
    fits = [lloyd(points, start, _index_of_zero(start, pins_zero)) for start in starts]
    entries = min(fits, key=lambda fit: fit[1])[0]
    for _ in range(_SCALE_ROUNDS if has_scales else 0):
        chosen = look_up(entries, nearest_entries(rows / scale[:, None], entries)) * members
        product, energy = (rows * chosen).sum(dim=1), chosen.square().sum(dim=1)
        scale = torch.where(product > 0, product / energy.clamp_min(STEP_FLOOR**2), scale)
        points = _scaled_points(rows, members, scale)
        entries, _ = lloyd(points, entries, _index_of_zero(entries, pins_zero))
    return entries, scale


def _scaled_points(rows: Tensor, members: Tensor, scale: Tensor) -> Points:
    """Weights over their scales; a squared error counts as much as it does for the weight."""
    importance = scale.square()[:, None].expand_as(rows)
    return sort_points((rows / scale[:, None])[members], importance[members])


def _index_of_zero(entries: Tensor, pins_zero: bool) -> int | None:
    return int((entries == 0).nonzero()[0]) if pins_zero else None


def _starts(ratio: Tensor, bits: float, size: int, pins_zero: bool) -> list[Tensor]:
    """The integers, evenly spaced over the range, and equal-frequency bins: (K,) each."""
    integers = torch.arange(size, dtype=torch.float64, device=ratio.device) - size // 2
    if size == 2:
        integers = torch.tensor([-1.0, 1.0], dtype=torch.float64, device=ratio.device)
    if not len(ratio):
        return [integers]
    even = torch.linspace(0, 1, size, dtype=torch.float64, device=ratio.device)
    even = ratio.min() + even * (ratio.max() - ratio.min())
    bins = bin_means(ratio, size - pins_zero)
    if pins_zero:
        even[even.abs().argmin()] = 0.0
        bins = torch.cat([bins, bins.new_zeros(1)])
    return [integers, even.sort().values, bins.sort().values]


class KMeansQuantizer(CodebookQuantizer):
    """A codebook fitted by k-means, then learned; weights go to the nearest entry in each forward.

    One codebook for the tensor; at granularity `channel` its entries are multiplied by a learned
    scale per channel. With a mask one entry stays exactly 0.
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
        rows = blocks.rows(weight.detach() if mask is None else weight.detach() * mask)
        has_scales, pins_zero = granularity.kind == "channel", mask is not None
        entries, scale = fit_kmeans(
            rows,
            blocks.members(mask).to(rows.device),
            bits,
            pins_zero=pins_zero,
            has_scales=has_scales,
        )
        if pins_zero:
            entries = entries[torch.arange(len(entries)) != _index_of_zero(entries, pins_zero)]
        super().__init__(
            weight,
            bits,
            granularity,
            axis,
            entries=entries if has_scales else entries * scale,
            scale=scale if has_scales else None,
            is_learned=True,
            pins_zero=pins_zero,
        )


KMEANS = QuantizerSpec(
    make=KMeansQuantizer,
    bits=(8, 7, 6, 5, 4, 3, 2, TERNARY_BITS, BINARY_BITS),
    granularities=("channel", "tensor"),
)
