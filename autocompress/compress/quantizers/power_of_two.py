"""Codebooks of powers of two, or of sums of them: multiplications become shifts and additions.

The shape of the codebook is fixed; a scale per channel or tensor is learned. Entries are integers,
multiples of the smallest power, so that they are exact.

Dimension key: `B` blocks that share a scale, `N` weights of a block, `K` entries of the codebook.
"""

import itertools

import torch
from torch import Tensor

from autocompress.compress.quantizers.base import STEP_FLOOR, QuantizerSpec
from autocompress.compress.quantizers.blocks import Blocks, Granularity
from autocompress.compress.quantizers.codebook import CodebookQuantizer, look_up, nearest_entries

_SCALE_CANDIDATES = 80


def powers_of_two(bits: int) -> Tensor:
    """0 and 2**(bits - 1) - 1 powers of two of either sign (INQ; Zhou et al. 2017).

    >>> powers_of_two(3).tolist()
    [-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0]
    """
    return _with_negatives([2.0**e for e in range(2 ** (bits - 1) - 1)])


def sums_of_powers_of_two(bits: int) -> Tensor:
    """Sums of few powers of two, of either sign (APoT; Li et al. 2020).

    The `bits - 1` bits of a magnitude are dealt to terms of two bits, which are 0 or one of three
    powers, and one term of one bit if a bit is left. Exponents go round the terms, as in the
    authors' code, so that all 2**(bits - 1) sums differ and lie denser near 0.

    >>> sums_of_powers_of_two(4).tolist()[7:]
    [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0]
    """
    n_pairs, n_single = divmod(bits - 1, 2)
    exponents = iter(range(3 * n_pairs + n_single))
    terms = [[0.0] for _ in range(n_pairs)]
    single = [0.0]
    for turn in range(3):
        if turn == 2 and n_single:
            single.append(0.5 ** next(exponents))
        for term in terms:
            term.append(0.5 ** next(exponents))
    if n_single and not n_pairs:
        single = [0.0, 1.0]
    sums = sorted({sum(choice) for choice in itertools.product(*terms, single)})
    smallest = sums[1]
    return _with_negatives([value / smallest for value in sums[1:]])


def _with_negatives(magnitudes: list[float]) -> Tensor:
    return torch.tensor([*(-m for m in reversed(magnitudes)), 0.0, *magnitudes])


def best_codebook_scales(rows: Tensor, entries: Tensor) -> Tensor:
    """Scale per row with the least squared error, by a search over a grid of scales.

    Args:
        rows: Shape (B, N).
        entries: Symmetric about 0, ascending, shape (K,).

    Returns:
        Scales of shape (B,), positive; the one that maps the widest weight on the widest entry is
        among those tried.
    """
    rows = rows.detach().float()
    widest = rows.abs().amax(dim=1) / entries[-1]
    best, best_error = widest.clone(), torch.full_like(widest, float("inf"))
    for share in torch.linspace(1.0 / _SCALE_CANDIDATES, 1.0, _SCALE_CANDIDATES):
        scale = (widest * share).clamp_min(STEP_FLOOR)[:, None]
        nearest = look_up(entries, nearest_entries(rows / scale, entries))
        error = (nearest * scale - rows).square().sum(dim=1)
        is_better = error < best_error
        best = torch.where(is_better, scale[:, 0], best)
        best_error = torch.where(is_better, error, best_error)
    return best.clamp_min(STEP_FLOOR)


class _FixedShape(CodebookQuantizer):
    """A fixed codebook that holds 0, times a learned scale."""

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
        entries = self.shape_of_codebook(int(bits)).to(rows.device)
        super().__init__(
            weight,
            bits,
            granularity,
            axis,
            entries=entries,
            scale=best_codebook_scales(rows, entries),
            is_learned=False,
            pins_zero=False,
        )

    def shape_of_codebook(self, bits: int) -> Tensor:
        """Integer entries, ascending, (K,)."""
        raise NotImplementedError


class PowerOfTwoQuantizer(_FixedShape):
    """0 and powers of two, times a learned scale."""

    def shape_of_codebook(self, bits: int) -> Tensor:
        """Integer entries, ascending, (2**bits - 1,)."""
        return powers_of_two(bits)


class AdditivePowerOfTwoQuantizer(_FixedShape):
    """Sums of powers of two, times a learned scale."""

    def shape_of_codebook(self, bits: int) -> Tensor:
        """Integer entries, ascending, (2**bits - 1,)."""
        return sums_of_powers_of_two(bits)


POWER_OF_TWO = QuantizerSpec(
    make=PowerOfTwoQuantizer,
    bits=(5, 4, 3, 2),  # a sixth bit would only add entries below 2**-15 of the widest
    granularities=("channel", "tensor"),
    integer_bits=(4, 3, 2),  # at 5 the largest entry is 2**14
)
ADDITIVE_POWER_OF_TWO = QuantizerSpec(
    make=AdditivePowerOfTwoQuantizer,
    bits=(8, 7, 6, 5, 4, 3, 2),
    granularities=("channel", "tensor"),
    integer_bits=(6, 5, 4, 3, 2),  # at 7 the largest entry is 448
)
