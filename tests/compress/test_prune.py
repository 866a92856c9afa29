import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from autocompress.analysis.channel_group import ChannelGroup, GroupMember
from autocompress.analysis.cut import cut_channels_
from autocompress.compress.calibration import CalibrationStatistics
from autocompress.compress.importance.score import score_channels
from autocompress.compress.prune import (
    choose_channels,
    global_counts,
    kept_channels,
    stepped_counts,
)
from autocompress.errors import InputError

RATIOS = st.floats(0.0, 1.0, exclude_max=True)


def _prune_(model, ratios, **choices):
    """Cut what is chosen; group name -> the channels removed."""
    chosen = choose_channels(model, ratios, **choices)
    cut_channels_(model, [(group, channels) for group, channels in chosen if len(channels)])
    return {group.name: channels for group, channels in chosen}


def _of(net, name):
    return next(group for group in net.profile.groups if group.name == name)


@given(st.integers(1, 600), RATIOS, st.integers(1, 32), st.integers(1, 70))
def test_kept_channels_is_a_width_that_runs(n_channels, ratio, round_to, block):
    kept = kept_channels(n_channels, ratio, round_to, block)
    step = -(-round_to // block)
    assert 1 <= kept <= n_channels
    assert kept == n_channels or n_channels <= step or kept % step == 0


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


@pytest.mark.parametrize(
    ("round_to", "block", "expected"), [(8, 1, 8), (8, 8, 6), (8, 4, 6), (8, 3, 6), (16, 4, 8)]
)
def test_kept_channels_rounds_units_by_the_width_they_stand_for(round_to, block, expected):
    assert kept_channels(12, 0.5, round_to, block) == expected


def test_prune_equals_a_slice_by_hand(zoo):
    net = zoo("mlp")
    group = _of(net, "fc1")
    pruned = copy.deepcopy(net.model)
    removed = _prune_(pruned, [(group, 0.25)], criterion="l2", round_to=1)
    order = np.argsort(score_channels(net.model, group, "l2"), kind="stable")
    assert removed["fc1"].tolist() == order[:4].tolist()
    kept = np.sort(order[4:])
    assert torch.equal(pruned.fc1.weight, net.model.fc1.weight[kept])
    assert torch.equal(pruned.fc1.bias, net.model.fc1.bias[kept])
    assert torch.equal(pruned.norm.running_mean, net.model.norm.running_mean[kept])
    assert torch.equal(pruned.fc2.weight, net.model.fc2.weight[:, kept])
    assert torch.equal(pruned.fc2.bias, net.model.fc2.bias)


@pytest.mark.parametrize("name", ["dense_concat", "residual", "unet"])
@pytest.mark.parametrize("scope", ["local", "global"])
def test_prune_does_not_depend_on_the_order_of_groups(zoo, model_hash, name, scope):
    net = zoo(name)
    forward, backward = copy.deepcopy(net.model), copy.deepcopy(net.model)
    ratios = [(group, 0.5) for group in net.profile.groups]
    _prune_(forward, ratios, criterion="l1", round_to=2, scope=scope)
    _prune_(backward, ratios[::-1], criterion="l1", round_to=2, scope=scope)
    assert model_hash(forward) == model_hash(backward)


def test_prune_reports_groups_that_rounding_leaves(zoo, model_hash):
    net = zoo("plain")
    pruned = copy.deepcopy(net.model)
    removed = _prune_(pruned, [(_of(net, "hidden"), 0.1)], criterion="l2", round_to=8)
    assert {name: len(channels) for name, channels in removed.items()} == {"hidden": 0}
    assert model_hash(pruned) == model_hash(net.model)


@pytest.mark.parametrize("criterion", ["obd", "fpgm", "random", "batchnorm_scale"])
@pytest.mark.parametrize("scope", ["local", "global"])
def test_prune_leaves_a_model_that_runs(zoo_net, criterion, scope):
    facts = {name: torch.rand_like(p) for name, p in zoo_net.model.named_parameters()}
    pruned = copy.deepcopy(zoo_net.model)
    removed = _prune_(
        pruned,
        [(group, 0.6) for group in zoo_net.profile.groups],
        criterion=criterion,
        round_to=2,
        statistics=CalibrationStatistics(squared_gradients=facts),
        scope=scope,
    )
    n_channels = {group.name: group.n_channels for group in zoo_net.profile.groups}
    assert all(len(channels) < n_channels[name] for name, channels in removed.items())
    with torch.no_grad():
        assert pruned(*zoo_net.inputs).isfinite().all()


def test_choose_does_not_touch_the_model_and_names_the_weakest_first(zoo, model_hash):
    net = zoo("mlp")
    before = model_hash(net.model)
    [(group, channels)] = choose_channels(
        net.model, [(_of(net, "fc1"), 0.5)], criterion="l1", round_to=1
    )
    scores = score_channels(net.model, group, "l1")[channels]
    assert (np.diff(scores) >= 0).all()
    assert model_hash(net.model) == before


def test_choose_takes_as_many_as_counts_say_whatever_the_ratios(zoo):
    net = zoo("mlp")
    ratios = [(group, 0.5) for group in net.profile.groups]
    for scope in ("local", "global"):
        chosen = choose_channels(
            net.model,
            ratios,
            criterion="l2",
            round_to=8,
            scope=scope,
            counts={"fc1": 3},
        )
        assert {group.name: len(channels) for group, channels in chosen} == {"fc1": 3, "fc2": 0}


@pytest.mark.parametrize("count", [-1, 16])
def test_choose_refuses_counts_that_empty_a_group(zoo, count):
    net = zoo("mlp")
    with pytest.raises(InputError, match=f"between 0 and 15 of its 16 channels, but {count}"):
        choose_channels(
            net.model, [(_of(net, "fc1"), 0.5)], criterion="l2", round_to=1, counts={"fc1": count}
        )


_scores = st.lists(st.floats(0.0, 4.0, width=16), min_size=2, max_size=12).map(np.array)


@given(st.lists(_scores, min_size=1, max_size=4), RATIOS)
@settings(deadline=None, max_examples=60)
def test_global_counts_equal_one_sort_over_all_scores(groups, ratio):
    """Brute force with single channels: walk up all scores, sparing the last of each group."""
    scores = {str(i): values for i, values in enumerate(groups)}
    n_removed = sum(int(ratio * (len(values) - 1)) for values in groups)
    expected, left = dict.fromkeys(scores, 0), n_removed
    for _, name in sorted((value, name) for name, values in scores.items() for value in values):
        if left and expected[name] < len(scores[name]) - 1:
            expected[name] += 1
            left -= 1
    counts = global_counts(scores, dict.fromkeys(scores, 1), n_removed)
    assert counts == expected
    assert sum(counts.values()) == n_removed


@given(
    st.lists(st.tuples(_scores, st.integers(1, 5)), min_size=1, max_size=4),
    RATIOS,
)
@settings(deadline=None, max_examples=60)
def test_global_counts_leave_widths_that_run(groups, ratio):
    scores = {str(i): values for i, (values, _) in enumerate(groups)}
    steps = {str(i): s if s < len(values) else 1 for i, (values, s) in enumerate(groups)}
    wanted = sum(len(v) - kept_channels(len(v), ratio, steps[n]) for n, v in scores.items())
    counts = global_counts(scores, steps, wanted)
    assert wanted - max(steps.values()) < sum(counts.values()) <= wanted
    for name, values in scores.items():
        kept = len(values) - counts[name]
        assert kept >= 1
        assert kept == len(values) or kept % steps[name] == 0


def test_global_counts_move_whole_steps_to_the_weaker_group():
    weak, strong = np.full(16, 0.5), np.full(16, 1.5)
    steps = {"weak": 4, "strong": 4}
    assert global_counts({"weak": weak, "strong": strong}, steps, 12) == {"weak": 12, "strong": 0}
    assert global_counts({"weak": weak, "strong": strong}, steps, 16) == {"weak": 12, "strong": 4}


def test_choose_of_global_scope_removes_as_many_as_local_but_where_scores_are_low():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2))
    with torch.no_grad():
        for column in (0, 1, 2, 3, 4, 5):  # six of the first group's channels do next to nothing
            model[0].weight[column] *= 1e-3
            model[1].weight[:, column] *= 1e-3
    index = np.arange(8)
    groups = [
        ChannelGroup(
            name=str(i),
            n_channels=8,
            members=(
                GroupMember(layer=str(i), side="out", local=index, root=index),
                GroupMember(layer=str(i + 1), side="in", local=index, root=index),
            ),
        )
        for i in (0, 1)
    ]
    ratios = [(group, 0.375) for group in groups]
    local = choose_channels(model, ratios, criterion="l2", round_to=1)
    found = choose_channels(model, ratios, criterion="l2", round_to=1, scope="global")
    assert [len(channels) for _, channels in local] == [3, 3]
    assert [sorted(channels.tolist()) for _, channels in found] == [[0, 1, 2, 3, 4, 5], []]


def test_choose_of_global_scope_leaves_groups_of_ratio_zero_alone(zoo):
    net = zoo("mlp")
    ratios = [(_of(net, "fc1"), 0.0), (_of(net, "fc2"), 0.5)]
    chosen = choose_channels(net.model, ratios, criterion="l2", round_to=1, scope="global")
    assert [len(channels) for _, channels in chosen] == [0, 5]


@given(st.integers(0, 500), st.integers(1, 20))
def test_stepped_counts_grow_evenly_and_reach_the_target_exactly(n_removed, n_steps):
    counts = stepped_counts(n_removed, n_steps)
    assert len(counts) == n_steps
    assert counts[-1] == n_removed
    increments = np.diff([0, *counts])
    assert increments.min() >= 0
    assert increments.max() - increments.min() <= 2
