import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.compress.sparsity_patterns import (
    find_pattern,
    matrix_shape,
    realised_sparsity,
    why_not_sparsify,
)
from autocompress.errors import InputError

NAMES = ["unstructured", "n:4", "n:8", "n:16", "block:1x4", "block:4x1", "block:4x4", "block:3x5"]
SHARES = st.floats(0.0, 1.0, exclude_max=True)


@pytest.mark.parametrize("name", NAMES)
def test_find_pattern_reads_its_own_name(name):
    assert find_pattern(name).name == name


@pytest.mark.parametrize(
    "name",
    ["", "n:5", "n:04", "2:4", "block:0x4", "block:4", "block:4x65", "block:4x4x4", "Unstructured"],
)
def test_find_pattern_names_the_forms(name):
    with pytest.raises(InputError, match="Unknown sparsity pattern") as caught:
        find_pattern(name)
    assert "'n:4', 'n:8', 'n:16', or 'block:RxC'" in caught.value.hint


@given(st.sampled_from(NAMES), st.integers(1, 20), st.integers(1, 30), SHARES)
@settings(deadline=None, max_examples=60)
def test_mask_never_empties_a_matrix(name, rows, columns, sparsity):
    mask = find_pattern(name).mask(torch.randn(rows, columns), sparsity)
    assert mask.shape == (rows, columns)
    assert mask.any()


@given(st.sampled_from(NAMES), st.integers(1, 4), st.integers(1, 3), SHARES)
@settings(deadline=None, max_examples=60)
def test_mask_realises_what_realised_sparsity_says(name, tiles, more, sparsity):
    """Blocks of this table divide 12 rows and 60 columns; single weights and groups any shape."""
    shape = (12 * tiles, 60 * more) if "block" in name else (tiles * 5, more * 13)
    mask = find_pattern(name).mask(torch.randn(shape), sparsity)
    assert float((~mask).sum()) / mask.numel() == pytest.approx(
        realised_sparsity(name, shape, sparsity)
    )


@given(st.sampled_from(NAMES), SHARES, SHARES, st.integers(0, 9))
@settings(deadline=None, max_examples=60)
def test_mask_only_loses_weights_when_the_share_grows(name, a, b, seed):
    low, high = sorted((a, b))
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(10, 21, generator=generator)
    pattern = find_pattern(name)
    first = pattern.mask(weight, low)
    trained = torch.randn(10, 21, generator=generator)
    second = pattern.mask(trained, high, first)
    assert not (second & ~first).any()
    assert int(second.sum()) == int(pattern.mask(weight, high).sum()) or "block" in name
    assert torch.equal(pattern.mask(trained, low, first), first)


@pytest.mark.parametrize(("name", "rows", "columns"), [("block:4x4", 4, 4), ("block:1x4", 1, 4)])
def test_mask_of_blocks_is_constant_in_every_block(name, rows, columns):
    mask = find_pattern(name).mask(torch.randn(16, 32), 0.6)
    tiles = mask.unflatten(0, (-1, rows)).unflatten(2, (-1, columns)).transpose(1, 2).flatten(2)
    assert (tiles.all(-1) | ~tiles.any(-1)).all()
    n_blocks = tiles.shape[0] * tiles.shape[1]
    assert int((~tiles.any(-1)).sum()) == round(0.6 * n_blocks)


def test_mask_of_blocks_keeps_those_of_the_largest_norm():
    weight = torch.tensor([[1.0, 1.0, 5.0, 0.0], [2.0, 2.0, 0.1, 0.1]])
    mask = find_pattern("block:1x2").mask(weight, 0.5)
    assert mask.tolist() == [[False, False, True, True], [True, True, False, False]]


@pytest.mark.parametrize(
    ("kind", "shape", "expected"),
    [
        ("linear", (8, 5), (8, 5)),
        ("conv", (8, 3, 3, 3), (8, 27)),
        ("transposed_conv", (16, 8, 2, 2), (8, 64)),
        ("embedding", (100, 16), (100, 16)),
    ],
)
def test_matrix_shape_is_outputs_by_inputs(kind, shape, expected):
    assert matrix_shape(kind, shape) == expected


@pytest.mark.parametrize(
    ("pattern", "kind", "shape", "words"),
    [
        ("unstructured", "norm", (8,), "kind 'norm'"),
        ("unstructured", "attention", (), "kind 'attention'"),
        ("unstructured", "linear", (), "no weight matrix"),
        ("unstructured", "linear", (1, 1), "a single number"),
        ("n:8", "linear", (4, 6), "reads 6 weights, fewer than a group of 8"),
        ("block:4x4", "linear", (3, 40), "3 x 40 matrix is smaller than the blocks of 'block:4x4'"),
        ("block:4x4", "linear", (4, 4), "is a single block"),
    ],
)
def test_why_not_sparsify_says_what_is_in_the_way(pattern, kind, shape, words):
    assert words in why_not_sparsify(pattern, kind, shape)


@pytest.mark.parametrize(
    ("pattern", "kind", "shape"),
    [
        ("unstructured", "depthwise", (8, 1, 3, 3)),
        ("n:4", "depthwise", (8, 1, 3, 3)),
        ("n:16", "transposed_conv", (8, 4, 2, 2)),
        ("block:4x4", "embedding", (100, 8)),
        ("block:4x4", "recurrent", ()),
        ("n:4", "recurrent", (32, 8)),
    ],
)
def test_why_not_sparsify_is_empty_where_the_pattern_fits(pattern, kind, shape):
    assert why_not_sparsify(pattern, kind, shape) == ""


def test_why_not_sparsify_refuses_an_unknown_pattern():
    with pytest.raises(InputError, match="'n:3'"):
        why_not_sparsify("n:3", "linear", (8, 8))


@pytest.mark.parametrize(
    ("pattern", "sparsity", "expected"),
    [
        ("n:4", 0.1, 0.0),
        ("n:4", 0.3, 0.25),
        ("n:4", 0.75, 0.75),
        ("n:4", 0.9, 0.75),
        ("n:16", 0.9, 0.875),
        ("n:16", 0.99, 0.9375),
    ],
)
@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("linear", (8, 32)),
        ("conv", (5, 16, 3, 3)),
        ("transposed_conv", (16, 5, 2)),
        ("recurrent", ()),
    ],
)
def test_realised_sparsity_of_groups_is_that_of_each_group(
    pattern, sparsity, expected, kind, shape
):
    assert realised_sparsity(pattern, shape, sparsity, kind) == expected


def test_realised_sparsity_counts_a_shorter_last_group():
    # 27 weights of an output: six groups of 4 keep 1, the last 3 keep 1
    assert realised_sparsity("n:4", (8, 3, 3, 3), 0.9, "conv") == pytest.approx(20 / 27)


@pytest.mark.parametrize("pattern", ["unstructured", "block:4x4"])
def test_realised_sparsity_of_a_recurrent_layer_without_groups_is_what_is_asked_for(pattern):
    assert realised_sparsity(pattern, (), 0.3, "recurrent") == 0.3
