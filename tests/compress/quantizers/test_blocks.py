import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.compress.quantizers.blocks import Blocks, Granularity

GROUPS = Granularity(kind="group", group_size=8)


@given(
    st.lists(st.integers(1, 7), min_size=2, max_size=4),
    st.sampled_from([Granularity(), Granularity(kind="tensor"), GROUPS]),
    st.integers(0, 1),
)
@settings(deadline=None, max_examples=60)
def test_restore_inverts_view(shape, granularity, axis):
    tensor = torch.randn(shape)
    blocks = Blocks(shape=tuple(shape), axis=axis, granularity=granularity)
    assert torch.equal(blocks.restore(blocks.view(tensor)), tensor)
    rows = blocks.rows(tensor)
    assert rows.shape[1] == blocks.size
    assert int(blocks.members(None).sum()) == tensor.numel()
    assert torch.equal(rows[blocks.members(None)].sort().values, tensor.flatten().sort().values)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("granularity", [Granularity(), Granularity(kind="tensor"), GROUPS])
def test_broadcast_multiplies_every_weight_by_the_scale_of_its_row(axis, granularity):
    blocks = Blocks(shape=(4, 5, 3), axis=axis, granularity=granularity)
    tensor = torch.ones(4, 5, 3)
    scale = torch.arange(1.0, len(blocks.rows(tensor)) + 1)
    scaled = blocks.restore(blocks.view(tensor) * blocks.broadcast(scale))
    expected = (blocks.rows(tensor) * scale[:, None])[blocks.members(None)]
    assert torch.equal(blocks.rows(scaled)[blocks.members(None)], expected)


def test_per_channel_repeats_the_scale_of_a_tensor():
    blocks = Blocks(shape=(3, 4), axis=0, granularity=Granularity(kind="tensor"))
    assert blocks.per_channel(torch.tensor([2.0])).tolist() == [[2.0]] * 3
    blocks = Blocks(shape=(2, 12), axis=0, granularity=GROUPS)
    assert blocks.per_channel(torch.arange(4.0)).tolist() == [[0.0, 1.0], [2.0, 3.0]]


def test_members_leave_masked_weights_and_padding_out():
    blocks = Blocks(shape=(1, 10), axis=0, granularity=GROUPS)
    mask = torch.ones(1, 10, dtype=torch.bool)
    mask[0, 0] = False
    assert blocks.members(mask).tolist() == [[False] + [True] * 7, [True] * 2 + [False] * 6]
