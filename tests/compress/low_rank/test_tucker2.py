import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.compress.low_rank.tucker2 import factorize_kernel, kernel_ranks


def _rebuild(left, core, right):
    return torch.einsum("op,pq...,qi->oi...", left, core, right)


@pytest.mark.parametrize(
    "shape", [(6, 4, 3, 3), (4, 6, 3), (2, 9, 1, 3), (9, 2, 2, 1), (5, 4, 2, 2, 2)]
)
def test_kernel_factors_of_full_ranks_are_exact(shape):
    weight = torch.randn(shape, dtype=torch.float64)
    ranks = kernel_ranks(shape, 1.0)
    torch.testing.assert_close(_rebuild(*factorize_kernel(weight, *ranks)), weight)


def test_kernel_of_low_rank_is_found_exactly():
    weight = _rebuild(torch.randn(8, 2), torch.randn(2, 3, 3, 3), torch.randn(3, 6))
    factors = factorize_kernel(weight, 2, 3)
    assert [tuple(f.shape) for f in factors] == [(8, 2), (2, 3, 3, 3), (3, 6)]
    torch.testing.assert_close(_rebuild(*factors), weight, rtol=1e-4, atol=1e-4)


@given(st.integers(1, 8), st.integers(1, 6), st.integers(0, 100))
@settings(deadline=None, max_examples=30)
def test_kernel_error_lies_between_its_bounds(rank_out, rank_in, seed):
    """Not below either mode's SVD tail, not above both tails together (De Lathauwer 2000)."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(8, 6, 3, 3, generator=generator, dtype=torch.float64)
    error = (_rebuild(*factorize_kernel(weight, rank_out, rank_in)) - weight).square().sum()
    tail_out = torch.linalg.svdvals(weight.flatten(1))[rank_out:].square().sum()
    tail_in = torch.linalg.svdvals(weight.movedim(1, 0).flatten(1))[rank_in:].square().sum()
    assert max(tail_out, tail_in) - 1e-9 <= error <= tail_out + tail_in + 1e-9


@pytest.mark.parametrize("ranks", [(0, 1), (1, 0), (9, 1), (1, 7)])
def test_kernel_refuses_ranks_out_of_range(ranks):
    with pytest.raises(ValueError, match="`rank` must be in"):
        factorize_kernel(torch.randn(8, 6, 3, 3), *ranks)


@given(
    st.lists(st.integers(1, 40), min_size=2, max_size=2),
    st.sampled_from([(), (1, 1), (3, 3), (5,), (2, 2, 2)]),
    st.floats(0.001, 1.0),
)
def test_ranks_are_never_empty_nor_above_full(channels, kernel, ratio):
    shape = (*channels, *kernel)
    full_out, full_in = kernel_ranks(shape, 1.0)
    rank_out, rank_in = kernel_ranks(shape, ratio)
    assert 1 <= rank_out <= full_out <= shape[0]
    assert 1 <= rank_in <= full_in <= shape[1]
