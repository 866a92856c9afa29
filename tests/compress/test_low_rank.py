import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from autocompress.compress.low_rank import (
    factorize_,
    factorize_kernel,
    factorize_matrix,
    ranks_of,
    shrinks,
)


def _rebuild(left, core, right):
    return torch.einsum("op,pq...,qi->oi...", left, core, right)


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


@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (4, 6, 3), (2, 9, 1, 3), (9, 2, 2, 1)])
def test_kernel_factors_of_full_ranks_are_exact(shape):
    weight = torch.randn(shape, dtype=torch.float64)
    ranks = ranks_of(shape, 1.0)
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
    st.sampled_from([(), (1, 1), (3, 3), (5,)]),
    st.floats(0.001, 1.0),
)
def test_ranks_are_never_empty_nor_above_full(channels, kernel, ratio):
    shape = (*channels, *kernel)
    full_out, full_in = ranks_of(shape, 1.0)
    rank_out, rank_in = ranks_of(shape, ratio)
    assert 1 <= rank_out <= full_out <= shape[0]
    assert 1 <= rank_in <= full_in <= shape[1]


LAYERS = {
    "linear": (nn.Linear(24, 20), (3, 24)),
    "linear_without_bias": (nn.Linear(24, 20, bias=False), (3, 24)),
    "pointwise": (nn.Conv2d(24, 20, 1, stride=2, padding=1), (3, 24, 6, 6)),
    "conv": (nn.Conv2d(12, 16, 3, stride=2, padding=1), (3, 12, 7, 7)),
    "dilated": (nn.Conv2d(12, 16, 3, dilation=2, padding="same", bias=False), (3, 12, 7, 7)),
    "conv1d": (nn.Conv1d(12, 16, 5, stride=3, padding=2), (3, 12, 11)),
}


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_factorized_layer_computes_with_its_low_rank_weight(name):
    layer, shape = LAYERS[name]
    model = nn.Sequential(copy.deepcopy(layer))
    assert factorize_(model, "0", 0.5) == ""
    assert _count(model) < _count(layer)
    x = torch.randn(shape)
    dense = copy.deepcopy(layer)
    dense.weight = nn.Parameter(_dense_weight(model[0], layer))
    torch.testing.assert_close(model(x), dense(x), rtol=1e-4, atol=1e-5)


def _dense_weight(factors, layer):
    first, last = factors.first.weight.flatten(1), factors.last.weight.flatten(1)
    if hasattr(factors, "core"):
        return _rebuild(last, factors.core.weight, first).detach()
    return (last @ first).reshape(layer.weight.shape).detach()


def _count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", sorted(LAYERS))
@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.6, 0.9, 1.0])
def test_shrinks_says_what_factorize_does(name, ratio):
    layer, _ = LAYERS[name]
    model = nn.Sequential(copy.deepcopy(layer))
    reason = factorize_(model, "0", ratio)
    assert (reason == "") == shrinks(tuple(layer.weight.shape), ratio)
    assert (_count(model) < _count(layer)) == (reason == "")


def test_layer_that_would_grow_stays_and_says_so():
    model = nn.Sequential(nn.Linear(24, 20))
    assert factorize_(model, "0", 0.99) == (
        "rank_ratio=0.99 of '0' skipped: "
        "factors of its weight (20, 24) would not be smaller than it"
    )
    assert type(model[0]) is nn.Linear


def test_shared_layer_is_replaced_under_all_its_names(zoo):
    model = copy.deepcopy(zoo("shared_layer").model)
    assert factorize_(model, "twice", 0.25) == ""
    assert isinstance(model.twice, nn.Sequential)
    assert model.alias is model.twice


@pytest.mark.parametrize("is_training", [True, False])
def test_factors_are_in_the_mode_of_their_layer(is_training):
    model = nn.Sequential(nn.Linear(24, 20)).train(is_training)
    factorize_(model, "0", 0.2)
    assert all(module.training is is_training for module in model.modules())
