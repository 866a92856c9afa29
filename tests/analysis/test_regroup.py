import copy

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.analysis.channel_groups import cut_channels_
from autocompress.analysis.regroup import regroup


def _first_half(n_channels):
    return np.arange(0, n_channels - 1, 3)


def test_regroup_lets_a_model_be_cut_in_two_steps_as_in_one(zoo_net, model_hash):
    """What falls in the second step is chosen among the channels that are left."""
    groups = zoo_net.profile.groups
    first = [(g, _first_half(g.n_channels)) for g in groups]
    at_once, in_steps = copy.deepcopy(zoo_net.model), copy.deepcopy(zoo_net.model)
    cut_channels_(in_steps, first)
    second, both = [], []
    for group, (old, gone) in zip(regroup(groups, first), first, strict=True):
        left = np.setdiff1d(np.arange(old.n_channels), gone)
        assert group.n_channels == len(left)
        later = np.arange(1, group.n_channels, 4)
        second.append((group, later))
        both.append((old, np.concatenate([gone, left[later]])))
    cut_channels_(in_steps, second)
    cut_channels_(at_once, both)
    assert model_hash(in_steps) == model_hash(at_once)
    with torch.no_grad():
        assert torch.equal(in_steps(*zoo_net.inputs), at_once(*zoo_net.inputs))


@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_regroup_is_exact_for_any_cuts(zoo, model_hash, data):
    net = zoo("dense_concat")
    groups = net.profile.groups
    channels = st.lists(st.integers(0, 7), unique=True, max_size=7)
    cuts = [(g, np.array(data.draw(channels), dtype=np.int64)) for g in groups]
    in_steps, at_once = copy.deepcopy(net.model), copy.deepcopy(net.model)
    left = list(groups)
    for index, (_, gone) in enumerate(cuts):  # one group after the other
        step = [(left[index], gone)]
        cut_channels_(in_steps, step)
        left = list(regroup(left, step))
    cut_channels_(at_once, cuts)
    assert model_hash(in_steps) == model_hash(at_once)


def test_regroup_of_nothing_changes_nothing(zoo):
    groups = zoo("unet").profile.groups
    for before, after in zip(groups, regroup(groups, []), strict=True):
        assert (before.name, before.n_channels, before.block) == (
            after.name,
            after.n_channels,
            after.block,
        )
        for old, new in zip(before.members, after.members, strict=True):
            assert np.array_equal(old.local, new.local)
            assert np.array_equal(old.root, new.root)


def test_regroup_moves_a_group_that_was_not_cut(zoo):
    groups = {g.name: g for g in zoo("dense_concat").profile.groups}
    conv2 = regroup([groups["conv2"]], [(groups["conv1"], np.array([0, 4]))])[0]
    conv3 = next(m for m in conv2.members if m.layer == "conv3" and m.side == "in")
    assert sorted(conv3.local.tolist()) == list(range(6, 14))
    assert conv2.n_channels == 8
