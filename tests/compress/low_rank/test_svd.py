import pytest
import torch
from torch import nn

from autocompress.compress.low_rank.svd import factorize_matrix, matrix_ranks, split_matrix


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (5, 5), (1, 4)])
def test_matrix_factors_of_full_rank_are_exact(shape):
    weight = torch.randn(shape, dtype=torch.float64)
    left, right = factorize_matrix(weight, min(shape))
    torch.testing.assert_close(left @ right, weight)


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_matrix_error_is_the_tail_of_the_singular_values(rank):
    weight = torch.randn(7, 6, dtype=torch.float64)
    left, right = factorize_matrix(weight, rank)
    tail = torch.linalg.svdvals(weight)[rank:].square().sum().sqrt()
    torch.testing.assert_close((left @ right - weight).norm(), tail)


def test_matrix_factors_have_the_same_scale_and_dtype():
    left, right = factorize_matrix(torch.randn(8, 6), 4)
    assert left.dtype == right.dtype == torch.float32
    torch.testing.assert_close(left.norm(dim=0), right.norm(dim=1))


@pytest.mark.parametrize("rank", [0, 7])
def test_matrix_refuses_a_rank_out_of_range(rank):
    with pytest.raises(ValueError, match=rf"\[1, 6\] for a weight of shape \(7, 6\), .* {rank}"):
        factorize_matrix(torch.randn(7, 6), rank)


@pytest.mark.parametrize(
    ("shape", "ratio", "rank"),
    [((8, 6), 1.0, 6), ((8, 6), 0.5, 3), ((8, 6, 3, 3), 1.0, 8), ((40, 3, 3), 1.0, 9)],
)
def test_ranks_take_a_kernel_as_a_matrix_of_outputs(shape, ratio, rank):
    assert matrix_ranks(shape, ratio) == (rank,)


def test_embedding_becomes_narrow_embedding_and_linear_that_look_up_the_low_rank_table():
    embedding = nn.Embedding(11, 8, padding_idx=3, sparse=True)
    factors = split_matrix(embedding, 0.5)
    table = (factors.first.weight @ factors.last.weight.T).detach()
    left, right = factorize_matrix(embedding.weight.detach(), 4)
    torch.testing.assert_close(table, left @ right)
    tokens = torch.tensor([[0, 3], [10, 5]])
    torch.testing.assert_close(factors(tokens), table[tokens])
    assert (factors.first.padding_idx, factors.first.sparse) == (3, True)
    torch.testing.assert_close(factors(torch.tensor([3])), torch.zeros(1, 8))


def test_split_draws_no_random_numbers():
    """Candidates are seeded: building one must not move the generator."""
    layer = nn.Conv2d(8, 8, 3)
    before = torch.get_rng_state()
    split_matrix(layer, 0.5)
    assert torch.equal(before, torch.get_rng_state())
