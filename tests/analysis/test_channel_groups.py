import copy

import numpy as np
import pytest
import torch
from torch import nn

from autocompress.analysis.channel_groups import (
    UNTRACED,
    ChannelGroup,
    GroupMember,
    cut_channels_,
    find_channel_groups,
)


def _masked(model, group, channels):
    """A copy whose consumers of `channels` read zeros instead: hooks on inputs, no surgery."""
    masked = copy.deepcopy(model)
    modules = dict(masked.named_modules())
    for member in group.members:
        module = modules[member.layer]
        if member.side == "in":
            dim = -1 if isinstance(module, nn.Linear) else 1
            indices = torch.from_numpy(member.indices_of(channels))
            module.register_forward_pre_hook(
                lambda _, args, dim=dim, indices=indices: (
                    args[0].index_fill(dim if args[0].ndim > 2 else 1, indices, 0.0),
                )
            )
    return masked


def _groups(zoo_net):
    return {group.name: group for group in zoo_net.profile.groups}


def test_cut_model_equals_masked_model_for_every_group(zoo_net):
    for group in zoo_net.profile.groups:
        channels = np.arange(1, group.n_channels, 3)
        pruned = copy.deepcopy(zoo_net.model)
        cut_channels_(pruned, [(group, channels)])
        with torch.no_grad():
            expected = _masked(zoo_net.model, group, channels)(*zoo_net.inputs)
            actual = pruned(*zoo_net.inputs)
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_cut_model_equals_masked_model_when_all_groups_are_cut_at_once(zoo_net):
    cuts = [(group, np.arange(0, group.n_channels - 1, 2)) for group in zoo_net.profile.groups]
    pruned, masked = copy.deepcopy(zoo_net.model), zoo_net.model
    cut_channels_(pruned, cuts)
    for group, channels in cuts:
        masked = _masked(masked, group, channels)
    with torch.no_grad():
        torch.testing.assert_close(
            pruned(*zoo_net.inputs), masked(*zoo_net.inputs), rtol=1e-4, atol=1e-5
        )


def test_cut_weights_are_slices(zoo):
    net = zoo("plain")
    group = _groups(net)["conv1"]
    pruned = copy.deepcopy(net.model)
    cut_channels_(pruned, [(group, np.array([0, 3]))])
    kept = [1, 2, 4, 5, 6, 7]
    assert torch.equal(pruned.conv1.weight, net.model.conv1.weight[kept])
    assert torch.equal(pruned.norm1.running_var, net.model.norm1.running_var[kept])
    assert torch.equal(pruned.norm1.bias, net.model.norm1.bias[kept])
    assert torch.equal(pruned.conv2.weight, net.model.conv2.weight[:, kept])
    assert torch.equal(pruned.conv2.bias, net.model.conv2.bias)
    assert torch.equal(pruned.hidden.weight, net.model.hidden.weight)


def test_cut_flattened_channels_fall_with_all_their_positions(zoo):
    net = zoo("plain")
    pruned = copy.deepcopy(net.model)
    cut_channels_(pruned, [(_groups(net)["conv2"], np.array([2]))])
    kept = [i for i in range(12 * 16) if i // 16 != 2]
    assert torch.equal(pruned.hidden.weight, net.model.hidden.weight[:, kept])


def test_cut_of_a_concatenation_uses_positions_before_any_cut(zoo):
    net = zoo("dense_concat")
    groups = _groups(net)
    pruned = copy.deepcopy(net.model)
    first, second = np.array([0, 1, 2]), np.array([5])
    cut_channels_(pruned, [(groups["conv1"], first), (groups["conv2"], second)])
    kept = [i for i in range(16) if i not in {0, 1, 2, 8 + 5}]
    assert torch.equal(pruned.conv3.weight, net.model.conv3.weight[:, kept])


def test_cut_of_nothing_leaves_the_model(zoo, model_hash):
    net = zoo("plain")
    pruned = copy.deepcopy(net.model)
    cut_channels_(pruned, [])
    assert model_hash(pruned) == model_hash(net.model)


def test_groups_do_not_overlap(zoo_net):
    taken = set()
    for group in zoo_net.profile.groups:
        for member in group.members:
            channels = {(member.layer, member.side, i) for i in member.local.tolist()}
            assert not channels & taken
            taken |= channels


def test_groups_are_named_and_refused_once(zoo_net):
    names = [group.name for group in zoo_net.profile.groups]
    assert len(set(names)) == len(names)
    assert not set(names) & set(zoo_net.profile.refused_groups)
    assert all(zoo_net.profile.refused_groups.values())
    order = [name for name, _ in zoo_net.model.named_modules()]
    assert names == sorted(names, key=order.index)


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("plain", {"conv1": 8, "conv2": 12, "hidden": 16}),
        ("residual", {"stem": 8, "conv1": 16, "conv2": 16, "conv3": 8}),
        ("zero_padded_shortcut", {"conv1": 16}),
        ("inverted_bottleneck", {"stem": 8, "expand": 24, "squeeze": 4}),
        ("grouped", {"last": 8}),
        ("dense_concat", {"conv1": 8, "conv2": 8, "conv3": 8}),
        ("unet", {"down1": 8, "down2": 16, "up": 8, "merge": 8}),
        ("mlp", {"fc1": 16, "fc2": 10}),
        ("conv1d", {"conv1": 8, "conv2": 16}),
        ("attention", {"fc1": 32}),
        ("lstm", {"hidden": 16}),
        ("gru", {"hidden": 16}),
        ("shared_layer", {"stem": 8, "last": 8}),
        ("tied_weights", {"hidden": 16}),
        ("pixel_shuffle", {"conv1": 8}),
        ("free_parameter", {"conv1": 8}),
    ],
)
def test_groups_of_known_nets(zoo, name, groups):
    assert {g.name: g.n_channels for g in zoo(name).profile.groups} == groups


@pytest.mark.parametrize(
    ("name", "group", "reason"),
    [
        ("plain", "head", "no layer consumes its channels"),
        ("grouped", "stem", "'grouped' is a grouped convolution"),
        ("grouped", "grouped", "GroupNorm 'norm' cannot be cut exactly"),
        ("attention", "embed", "LayerNorm 'norm1' cannot be cut exactly"),
        ("tied_weights", "back", "the parameters of 'head' are tied"),
        ("pixel_shuffle", "conv2", "the cut model does not run"),
        ("zero_padded_shortcut", "stem", "the cut model does not run"),
        ("free_parameter", "conv2", "a parameter outside of any layer"),
    ],
)
def test_refused_groups_say_why(zoo, name, group, reason):
    assert reason in zoo(name).profile.refused_groups[group]


def test_groups_are_found_when_parameters_are_frozen(zoo):
    net = zoo("plain")
    frozen = copy.deepcopy(net.model).requires_grad_(False)
    groups, _ = find_channel_groups(frozen, net.inputs)
    assert [g.name for g in groups] == [g.name for g in net.profile.groups]
    assert not any(p.requires_grad for p in frozen.parameters())


class _Repeats(nn.Module):
    """The same channels stand twice in one input."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 1), nn.Conv2d(16, 8, 1)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        x = torch.relu(self.conv1(x))
        return self.head(self.conv2(torch.cat([x, x], 1)).mean((2, 3)))


def test_channels_that_stand_twice_in_one_layer_fall_twice():
    model = _Repeats().eval()
    groups, _ = find_channel_groups(model, (torch.randn(2, 3, 4, 4),))
    pruned = copy.deepcopy(model)
    cut_channels_(pruned, [(groups[0], np.array([1, 6]))])
    kept = [i for i in range(16) if i % 8 not in {1, 6}]
    assert torch.equal(pruned.conv2.weight, model.conv2.weight[:, kept])


class _Untraceable(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        if torch.is_grad_enabled():
            raise RuntimeError("only without gradients")
        return self.fc(x)


def test_untraceable_model_has_no_groups_and_says_so():
    groups, refused = find_channel_groups(_Untraceable(), (torch.randn(2, 4),))
    assert groups == ()
    assert "cannot be traced: only without gradients" in refused[UNTRACED]


def test_indices_of_follows_channels_to_their_places():
    member = GroupMember(
        layer="fc", side="in", local=np.array([4, 5, 0, 1]), root=np.array([1, 1, 0, 0])
    )
    assert member.indices_of(np.array([1])).tolist() == [4, 5]
    assert member.indices_of(np.array([1, 0])).tolist() == [0, 1, 4, 5]
    assert ChannelGroup(name="g", n_channels=2, members=(member,)).members == (member,)
