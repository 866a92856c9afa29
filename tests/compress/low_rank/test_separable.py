import pytest
import torch

from autocompress.compress.low_rank.separable import factorize_separably, separable_ranks


def _rebuild(depthwise, mix, n_in):
    filters = depthwise.reshape(n_in, -1, *depthwise.shape[2:])  # (I, m, *kernel)
    return torch.einsum("oim,im...->oi...", mix.unflatten(1, (n_in, -1)), filters)


@pytest.mark.parametrize("shape", [(12, 4, 3, 3), (3, 5, 3, 3), (6, 2, 5), (5, 2, 2, 2, 2)])
def test_full_multiplier_is_exact(shape):
    weight = torch.randn(shape, dtype=torch.float64)
    (multiplier,) = separable_ranks(shape, 1.0)
    depthwise, mix = factorize_separably(weight, multiplier)
    assert depthwise.shape == (shape[1] * multiplier, 1, *shape[2:])
    torch.testing.assert_close(_rebuild(depthwise, mix, shape[1]), weight)


def test_multiplier_one_is_the_best_rank_one_fit_per_input_channel():
    weight = torch.randn(7, 4, 3, 3, dtype=torch.float64)
    rebuilt = _rebuild(*factorize_separably(weight, 1), 4)
    for i in range(4):
        U, S, Vh = torch.linalg.svd(weight[:, i].flatten(1))
        best = S[0] * torch.outer(U[:, 0], Vh[0])
        torch.testing.assert_close(rebuilt[:, i].flatten(1), best)


@pytest.mark.parametrize(("ratio", "multiplier"), [(0.01, 1), (0.5, 4), (1.0, 9)])
def test_multiplier_is_a_share_of_the_kernel_positions(ratio, multiplier):
    assert separable_ranks((16, 8, 3, 3), ratio) == (multiplier,)


def test_multiplier_above_full_is_refused():
    with pytest.raises(ValueError, match=r"\[1, 9\] .* got 10"):
        factorize_separably(torch.randn(16, 4, 3, 3), 10)
