import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.compress.magnitude_masks import (
    block_scores,
    group_mask,
    keep_highest,
    n_zeros,
    unstructured_mask,
)

SHARES = st.floats(0.0, 1.0, exclude_max=True)
SIZES = st.integers(1, 20)
_few = settings(deadline=None, max_examples=40)


def _weight(rows, columns, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-4, 5, (rows, columns), generator=generator).float()  # ties abound


@given(st.integers(1, 500), SHARES)
def test_n_zeros_is_the_nearest_count_that_leaves_one(n_units, sparsity):
    zeros = n_zeros(n_units, sparsity)
    assert 0 <= zeros < n_units
    assert zeros == n_units - 1 or abs(zeros - sparsity * n_units) <= 0.5


@given(SIZES, SIZES, SHARES, st.integers(0, 9))
@_few
def test_unstructured_mask_equals_a_stable_sort(rows, columns, sparsity, seed):
    weight = _weight(rows, columns, seed)
    flat = weight.flatten().tolist()
    smallest = sorted(range(len(flat)), key=lambda i: (abs(flat[i]), i))
    expected = torch.ones(len(flat), dtype=torch.bool)
    expected[smallest[: n_zeros(len(flat), sparsity)]] = False
    assert torch.equal(unstructured_mask(weight, sparsity), expected.reshape(rows, columns))


def test_unstructured_mask_zeroes_exactly_the_share():
    mask = unstructured_mask(torch.randn(40, 25), 0.37)
    assert int((~mask).sum()) == 370


def test_unstructured_mask_keeps_earlier_zeros_though_their_weights_are_large():
    weight = torch.tensor([9.0, 1.0, 2.0, 3.0, 0.0, 5.0])
    earlier = torch.tensor([False, True, True, True, True, True])
    mask = unstructured_mask(weight, 0.5, earlier)
    assert mask.tolist() == [False, False, True, True, False, True]


@given(SIZES, SIZES, SHARES, st.sampled_from([4, 8, 16]), st.integers(0, 9))
@_few
def test_group_mask_keeps_the_largest_of_every_group(rows, columns, sparsity, size, seed):
    weight = _weight(rows, columns, seed)
    mask = group_mask(weight, sparsity, size)
    assert mask.shape == weight.shape
    for row, kept in zip(weight.abs().tolist(), mask.tolist(), strict=True):
        for start in range(0, columns, size):
            group, stays = row[start : start + size], kept[start : start + size]
            gone = n_zeros(len(group), sparsity)
            order = sorted(range(len(group)), key=lambda i: (group[i], i))
            assert [i for i in range(len(group)) if not stays[i]] == sorted(order[:gone])


def test_group_mask_of_half_is_two_of_four():
    mask = group_mask(torch.randn(16, 64), 0.5, 4)
    assert (mask.unflatten(1, (-1, 4)).sum(-1) == 2).all()


def test_group_mask_keeps_one_of_every_group_at_the_highest_sparsity():
    mask = group_mask(torch.randn(5, 19), 0.999, 8)
    assert mask[:, :8].sum(1).tolist() == [1] * 5
    assert mask[:, 16:].sum(1).tolist() == [1] * 5


@given(SIZES, SIZES, st.integers(1, 6), st.integers(1, 6))
@_few
def test_block_scores_are_root_mean_squares(rows, columns, height, width):
    weight = _weight(rows, columns)
    scores = block_scores(weight, (height, width))
    assert scores.shape == (math.ceil(rows / height), math.ceil(columns / width))
    for i, j in np.ndindex(*scores.shape):
        block = weight[i * height : (i + 1) * height, j * width : (j + 1) * width]
        assert abs(float(scores[i, j]) - float(block.square().mean().sqrt())) < 1e-6


def test_block_scores_of_single_weights_keep_the_smallest_floats_apart():
    weight = torch.tensor([[1e-30, 2e-30], [-3e-30, 0.0]])
    assert torch.equal(block_scores(weight, (1, 1)), weight.abs())


def test_block_scores_ignore_masked_weights_and_put_masked_blocks_last():
    weight = torch.tensor([[3.0, 4.0, 9.0, 9.0]])
    earlier = torch.tensor([[True, False, False, False]])
    scores = block_scores(weight, (1, 2), earlier)
    torch.testing.assert_close(scores, torch.tensor([[math.sqrt(4.5), -1.0]], dtype=torch.float64))


def test_keep_highest_drops_the_earlier_of_equals():
    assert keep_highest(torch.tensor([1.0, 2.0, 1.0, 1.0]), 2).tolist() == [
        False, True, False, True,
    ]  # fmt: skip
