import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.compress.low_rank.data_svd import factorize_for_outputs
from autocompress.compress.low_rank.svd import factorize_matrix


def _data(seed, n_out=7, n_in=6, n_examples=200):
    """A weight and inputs whose directions differ a lot in strength."""
    generator = torch.Generator().manual_seed(seed)
    W = torch.randn(n_out, n_in, generator=generator, dtype=torch.float64)
    mix = torch.randn(n_in, n_in, generator=generator, dtype=torch.float64)
    X = mix @ torch.randn(n_in, n_examples, generator=generator, dtype=torch.float64)
    return W, X * torch.logspace(-2, 1, n_in, dtype=torch.float64)[:, None]


def _moment(weight, inputs):
    outputs = weight @ inputs
    return outputs @ outputs.T / inputs.shape[1]


@given(st.integers(1, 6), st.integers(0, 50))
@settings(deadline=None, max_examples=20)
def test_output_error_is_the_tail_of_the_eigenvalues_and_not_above_svd(rank, seed):
    W, X = _data(seed)
    left, right = factorize_for_outputs(W, _moment(W, X), rank)
    error = ((W - left @ right) @ X).square().sum() / X.shape[1]
    eigenvalues = torch.linalg.eigvalsh(_moment(W, X)).flip(0)
    assert abs(error - eigenvalues[rank:].sum()) <= 1e-5 * eigenvalues.sum()
    plain_left, plain_right = factorize_matrix(W, rank)
    plain_error = ((W - plain_left @ plain_right) @ X).square().sum() / X.shape[1]
    assert error <= plain_error + 1e-5 * eigenvalues.sum()


def test_output_error_is_far_below_svd_where_the_data_are_uneven():
    W, X = _data(0)
    left, right = factorize_for_outputs(W, _moment(W, X), 2)
    plain_left, plain_right = factorize_matrix(W, 2)
    error = ((W - left @ right) @ X).norm()
    assert error < 0.5 * ((W - plain_left @ plain_right) @ X).norm()


def test_white_inputs_give_plain_svd():
    W, _ = _data(1)
    left, right = factorize_for_outputs(W, W @ W.T, 3)
    plain_left, plain_right = factorize_matrix(W, 3)
    torch.testing.assert_close(left @ right, plain_left @ plain_right)
    torch.testing.assert_close(left.norm(dim=0), right.norm(dim=1))


@pytest.mark.parametrize("shape", [(7, 5), (5, 7)])
@pytest.mark.parametrize("n_examples", [0, 2, 100])
def test_full_rank_is_exact_however_few_directions_the_data_show(shape, n_examples):
    W, X = _data(2, *shape, n_examples=max(n_examples, 1))
    moment = _moment(W, X) if n_examples else torch.zeros(len(W), len(W), dtype=torch.float64)
    left, right = factorize_for_outputs(W, moment, min(shape))
    torch.testing.assert_close(left @ right, W, rtol=1e-5, atol=1e-6)


def test_all_zero_weight_gives_finite_factors():
    left, right = factorize_for_outputs(torch.zeros(4, 3), torch.zeros(4, 4), 2)
    assert torch.equal(left @ right, torch.zeros(4, 3))


def test_moment_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"\(4, 4\) for a weight of shape \(4, 3\), .* \(3, 3\)"):
        factorize_for_outputs(torch.randn(4, 3), torch.eye(3), 2)


def test_rank_above_full_is_refused():
    with pytest.raises(ValueError, match=r"\[1, 3\] .* got 4"):
        factorize_for_outputs(torch.randn(4, 3), torch.eye(4), 4)
