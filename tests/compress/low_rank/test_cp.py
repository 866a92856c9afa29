import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.compress.low_rank import cp
from autocompress.compress.low_rank.cp import cp_ranks, factorize_cp


def _rebuild(out, spatial, into):
    return torch.einsum("or,r...,ri->oi...", out, spatial, into)


def _kernel(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (4, 6, 3), (3, 9, 2, 2), (2, 3, 2, 2, 2)])
def test_terms_of_full_rank_are_exact(shape):
    weight = _kernel(0, *shape)
    (rank,) = cp_ranks(shape, 1.0)
    torch.testing.assert_close(_rebuild(*factorize_cp(weight, rank)), weight)


@pytest.mark.parametrize(
    ("shape", "rank"), [((6, 4, 3, 3), 24), ((20, 8, 3), 24), ((2, 3, 3, 3), 6)]
)
def test_full_rank_is_the_smallest_face(shape, rank):
    assert cp_ranks(shape, 1.0) == (rank,)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_kernel_of_low_rank_is_found(rank):
    parts = _kernel(1, 8, rank), _kernel(2, rank, 3, 3), _kernel(3, rank, 6)
    weight = _rebuild(*parts)
    out, spatial, into = factorize_cp(weight, rank)
    assert (out.shape, spatial.shape, into.shape) == ((8, rank), (rank, 3, 3), (rank, 6))
    assert (_rebuild(out, spatial, into) - weight).norm() < 0.02 * weight.norm()


@given(st.integers(1, 24), st.integers(0, 50))
@settings(deadline=None, max_examples=20)
def test_error_is_not_above_that_of_the_truncated_slices(rank, seed):
    """The start keeps the strongest of orthogonal terms; least squares can only improve it."""
    weight = _kernel(seed, 6, 4, 9)
    error = (_rebuild(*factorize_cp(weight, rank)) - weight).square().sum()
    unfolded = weight.movedim(1, 0).flatten(1)
    _, axes = torch.linalg.eigh(unfolded @ unfolded.T)
    slices = torch.einsum("oik,it->tok", weight, axes)
    tail = torch.linalg.svdvals(slices).flatten().sort(descending=True).values[rank:]
    assert error <= tail.square().sum() + 1e-9


def test_error_falls_with_the_rank():
    weight = _kernel(4, 8, 8, 3, 3)
    ranks = [4, 8, 16, 32, 48, 64]
    errors = [float((_rebuild(*factorize_cp(weight, r)) - weight).norm()) for r in ranks]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-9 < errors[0]


def test_collinear_terms_do_not_stop_it(monkeypatch):
    """Their least-squares problem is singular; the pull towards the previous factor solves it."""
    start = cp._from_slices
    monkeypatch.setattr(
        cp, "_from_slices", lambda tensor, rank: [f.repeat(1, rank) for f in start(tensor, 1)]
    )
    weight = _kernel(5, 6, 4, 9)
    factors = factorize_cp(weight, 4)
    assert (_rebuild(*factors) - weight).norm() < weight.norm()
    assert max(float(f.abs().max()) for f in factors) < 10.0


def test_last_sweep_is_not_kept_where_it_was_worse(monkeypatch):
    weight = _kernel(6, 6, 4, 9)
    expected = factorize_cp(weight, 5)
    sweep, n_sweeps = cp._sweep, 0

    def diverging(tensor, factors):
        nonlocal n_sweeps
        n_sweeps += 1
        improved = sweep(tensor, factors)
        return improved if n_sweeps < 4 else [f * torch.nan for f in improved]

    monkeypatch.setattr(cp, "_sweep", diverging)
    rebuilt = _rebuild(*factorize_cp(weight, 5))
    assert n_sweeps == 4
    assert (_rebuild(*expected) - weight).norm() < (rebuilt - weight).norm() < weight.norm()


def test_vectors_of_a_term_have_one_norm_and_the_dtype_of_the_weight():
    out, spatial, into = factorize_cp(torch.randn(6, 5, 3, 3), 7)
    assert out.dtype == spatial.dtype == into.dtype == torch.float32
    torch.testing.assert_close(out.norm(dim=0), into.norm(dim=1))
    torch.testing.assert_close(out.norm(dim=0), spatial.flatten(1).norm(dim=1))


def test_zero_weight_gives_finite_factors():
    factors = factorize_cp(torch.zeros(4, 3, 3), 2)
    assert torch.equal(_rebuild(*factors), torch.zeros(4, 3, 3))


@pytest.mark.parametrize("rank", [0, 25])
def test_rank_out_of_range_is_refused(rank):
    with pytest.raises(ValueError, match=rf"\[1, 24\] .* got {rank}"):
        factorize_cp(torch.randn(6, 4, 3, 3), rank)
