import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.compress.quantizers.codebook import look_up, nearest_entries
from autocompress.compress.quantizers.power_of_two import (
    best_codebook_scales,
    powers_of_two,
    sums_of_powers_of_two,
)


@pytest.mark.parametrize("bits", [2, 3, 4, 5])
def test_entries_are_powers_of_two(bits):
    entries = powers_of_two(bits)
    assert len(entries) == 2**bits - 1
    assert torch.equal(entries, -entries.flip(0))
    positive = entries[entries > 0]
    assert (torch.frexp(positive)[0] == 0.5).all()
    assert positive[0] == 1.0
    assert torch.equal(positive[1:], positive[:-1] * 2)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
def test_sums_are_distinct_integers_with_few_ones_in_binary(bits):
    entries = sums_of_powers_of_two(bits)
    assert len(set(entries.tolist())) == len(entries) == 2**bits - 1
    assert torch.equal(entries, -entries.flip(0))
    assert torch.equal(entries, entries.round())
    n_terms = -(-(bits - 1) // 2)
    assert max(int(value).bit_count() for value in entries.abs().tolist()) == n_terms


def test_sums_are_those_of_the_paper():
    """Li et al. 2020, section 2.2: 4 bits, sums of {0, 1, 1/4, 1/16} and {0, 1/2, 1/8, 1/32}.

    That is for unsigned values; a sign leaves three bits, where the authors' code has the terms
    {0, 1/2, 1/4, 1/16} and {0, 1/8}.
    """
    unsigned = {a + b for a in (0, 1, 1 / 4, 1 / 16) for b in (0, 1 / 2, 1 / 8, 1 / 32)}
    ours = sums_of_powers_of_two(5)
    assert {v / 32 for v in ours.tolist() if v >= 0} == unsigned
    signed = {a + b for a in (0, 1 / 2, 1 / 4, 1 / 16) for b in (0, 1 / 8)}
    assert {v / 16 for v in sums_of_powers_of_two(4).tolist() if v >= 0} == signed


@pytest.mark.parametrize("bits", [2, 3])
def test_sums_of_one_term_are_powers(bits):
    assert torch.equal(sums_of_powers_of_two(bits), powers_of_two(bits))


@given(st.sampled_from([2, 3, 4, 6]), st.integers(0, 300), st.floats(1e-3, 1e3))
@settings(deadline=None, max_examples=30)
def test_best_scales_are_never_worse_than_scaling_by_the_largest_weight(bits, seed, spread):
    rows = torch.randn(3, 25, generator=torch.Generator().manual_seed(seed)) * spread
    entries = sums_of_powers_of_two(bits)

    def error(scale):
        nearest = look_up(entries, nearest_entries(rows / scale[:, None], entries))
        return (nearest * scale[:, None] - rows).square().sum(1)

    widest = rows.abs().amax(1) / entries[-1]
    best = best_codebook_scales(rows, entries)
    assert (best > 0).all()
    assert (error(best) <= error(widest) * (1 + 1e-5)).all()
