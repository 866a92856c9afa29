import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autocompress.compress.importance import score_channels
from autocompress.compress.prune import kept_channels, prune_

RATIOS = st.floats(0.0, 1.0, exclude_max=True)


@given(st.integers(1, 600), RATIOS, st.integers(1, 32))
def test_kept_channels_is_a_width_that_runs(n_channels, ratio, round_to):
    kept = kept_channels(n_channels, ratio, round_to)
    assert 1 <= kept <= n_channels
    assert kept == n_channels or n_channels <= round_to or kept % round_to == 0


@given(st.integers(1, 600), RATIOS, RATIOS, st.integers(1, 32))
def test_kept_channels_never_grows_with_the_ratio(n_channels, a, b, round_to):
    low, high = sorted((a, b))
    assert kept_channels(n_channels, low, round_to) >= kept_channels(n_channels, high, round_to)


@given(st.integers(1, 600), RATIOS, st.integers(1, 32))
def test_kept_channels_is_within_one_step_of_what_the_ratio_leaves(n_channels, ratio, round_to):
    step = round_to if n_channels > round_to else 1
    assert abs(kept_channels(n_channels, ratio, round_to) - n_channels * (1 - ratio)) <= step


@given(st.integers(1, 600), st.integers(1, 32))
def test_kept_channels_of_ratio_zero_is_everything(n_channels, round_to):
    assert kept_channels(n_channels, 0.0, round_to) == n_channels


def test_prune_equals_a_slice_by_hand(zoo):
    net = zoo("mlp")
    group = next(g for g in net.profile.groups if g.name == "fc1")
    pruned = copy.deepcopy(net.model)
    assert prune_(pruned, [(group, 0.25)], criterion="l2", round_to=1) == {"fc1": 4}
    order = np.argsort(score_channels(net.model, group, "l2"), kind="stable")
    kept = np.sort(order[4:])
    assert torch.equal(pruned.fc1.weight, net.model.fc1.weight[kept])
    assert torch.equal(pruned.fc1.bias, net.model.fc1.bias[kept])
    assert torch.equal(pruned.norm.running_mean, net.model.norm.running_mean[kept])
    assert torch.equal(pruned.fc2.weight, net.model.fc2.weight[:, kept])
    assert torch.equal(pruned.fc2.bias, net.model.fc2.bias)


@pytest.mark.parametrize("name", ["dense_concat", "residual", "unet"])
def test_prune_does_not_depend_on_the_order_of_groups(zoo, model_hash, name):
    net = zoo(name)
    forward, backward = copy.deepcopy(net.model), copy.deepcopy(net.model)
    ratios = [(group, 0.5) for group in net.profile.groups]
    prune_(forward, ratios, criterion="l1", round_to=2)
    prune_(backward, ratios[::-1], criterion="l1", round_to=2)
    assert model_hash(forward) == model_hash(backward)


def test_prune_reports_groups_that_rounding_leaves(zoo, model_hash):
    net = zoo("plain")
    group = next(g for g in net.profile.groups if g.name == "hidden")
    pruned = copy.deepcopy(net.model)
    assert prune_(pruned, [(group, 0.1)], criterion="l2", round_to=8) == {"hidden": 0}
    assert model_hash(pruned) == model_hash(net.model)
