import pytest
import torch

from autocompress.compress.low_rank.spatial import factorize_spatially, spatial_ranks


def _rebuild(column, row):
    return torch.einsum("rihx,oryw->oihw", column, row)


@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (2, 5, 5, 3), (4, 1, 2, 7)])
def test_kernels_of_full_rank_are_exact(shape):
    weight = torch.randn(shape, dtype=torch.float64)
    (rank,) = spatial_ranks(shape, 1.0)
    column, row = factorize_spatially(weight, rank)
    assert column.shape == (rank, shape[1], shape[2], 1)
    assert row.shape == (shape[0], rank, 1, shape[3])
    torch.testing.assert_close(_rebuild(column, row), weight)


def test_kernel_of_outer_products_is_found_at_its_rank():
    weight = _rebuild(torch.randn(2, 5, 3, 1), torch.randn(6, 2, 1, 3))
    torch.testing.assert_close(
        _rebuild(*factorize_spatially(weight, 2)), weight, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("rank", [1, 4, 9])
def test_error_is_the_tail_of_the_matrix_of_rows_and_columns(rank):
    weight = torch.randn(6, 4, 3, 5, dtype=torch.float64)
    matrix = torch.stack([weight[o, :, :, w].flatten() for o in range(6) for w in range(5)])
    tail = torch.linalg.svdvals(matrix)[rank:].square().sum().sqrt()
    error = (_rebuild(*factorize_spatially(weight, rank)) - weight).norm()
    torch.testing.assert_close(error, tail)


def test_rank_above_full_is_refused():
    with pytest.raises(ValueError, match=r"\[1, 12\] .* got 13"):
        factorize_spatially(torch.randn(6, 4, 3, 3), 13)
