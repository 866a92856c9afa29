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
        indices = torch.from_numpy(member.indices_of(channels))
        if member.side == "in":
            is_last = isinstance(module, nn.Linear | nn.RNNBase)
            module.register_forward_pre_hook(
                lambda _, args, is_last=is_last, indices=indices: (
                    args[0].index_fill(args[0].ndim - 1 if is_last else 1, indices, 0.0),
                    *args[1:],
                )
            )
        elif isinstance(module, nn.RNNBase):
            _forget_units_(module, indices)
    return masked


def _forget_units_(rnn, indices):
    """Nothing inside of a recurrent layer reads these outputs any more."""
    units = torch.unique(indices % rnn.hidden_size)
    with torch.no_grad():
        for name, parameter in rnn.named_parameters():
            if name.startswith("weight_hh"):
                parameter[:, units] = 0.0
            elif name.startswith("weight_ih") and "_l0" not in name:
                for start in range(0, parameter.shape[1], rnn.hidden_size):
                    parameter[:, start + units] = 0.0


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
        ("zero_padded_shortcut", {"stem": 8, "conv1": 16}),
        ("inverted_bottleneck", {"stem": 8, "expand": 24, "squeeze": 4}),
        ("grouped", {"stem": 2, "last": 8}),
        ("dense_concat", {"conv1": 8, "conv2": 8, "conv3": 8}),
        ("unet", {"down1": 8, "down2": 16, "up": 8, "merge": 8}),
        ("mlp", {"fc1": 16, "fc2": 10}),
        ("conv1d", {"conv1": 8, "conv2": 16}),
        ("attention", {"fc1": 32}),
        ("lstm", {"rnn": 8, "hidden": 16}),
        ("gru", {"rnn": 8, "hidden": 16}),
        ("shared_layer", {"stem": 8, "last": 8}),
        ("tied_weights", {"embed": 8, "hidden": 16}),
        ("pixel_shuffle", {"conv1": 8, "conv2": 3}),
        ("free_parameter", {"conv1": 8}),
        ("encoder", {"encoder.layers.0.linear1": 24, "hidden": 16}),
        (
            "explicit_encoder",
            {
                "encoder.layers.0.self_attn.q_proj": 2,
                "encoder.layers.0.linear1": 24,
                "hidden": 16,
            },
        ),
        (
            "bert_like",
            {
                "layers.0.attention.query": 4,
                "layers.0.up": 32,
                "layers.1.attention.query": 4,
                "layers.1.up": 32,
                "pooler": 16,
            },
        ),
        (
            "vit_like",
            {"blocks.0.qkv": 4, "blocks.0.fc1": 32, "blocks.1.qkv": 4, "blocks.1.fc1": 32},
        ),
        (
            "gpt_like",
            {
                "blocks.0.attend": 2,
                "blocks.0.mlp.0": 32,
                "blocks.1.attend": 2,
                "blocks.1.mlp.0": 32,
            },
        ),
        ("lstm_text", {"embed": 12, "lstm": 8, "hidden": 16}),
        ("glu", {"stem": 16, "gated": 16, "back": 16}),
        ("conv_glu", {"stem": 8, "conv": 12}),
        ("depthwise_separable", {"stem": 16, "last": 16}),
        ("two_inputs", {"conv": 16, "last": 8}),
    ],
)
def test_groups_of_known_nets(zoo, name, groups):
    assert {g.name: g.n_channels for g in zoo(name).profile.groups} == groups


@pytest.mark.parametrize(
    ("name", "group", "reason"),
    [
        ("plain", "head", "no layer consumes its channels"),
        ("attention", "embed", "LayerNorm 'norm1' mixes its channels"),
        ("attention", "q", "the cut model does not run"),
        ("bert_like", "words", "LayerNorm 'layers.0.norm1' mixes its channels"),
        ("encoder", "encoder.layers.0.self_attn", "MultiheadAttention"),
        ("gpt_like", "head", "the parameters of 'head' are tied to another layer's"),
        ("tied_weights", "head", "the parameters of 'head' are tied to another layer's"),
        ("zero_padded_shortcut", "conv2", "the cut model does not run"),
        ("free_parameter", "conv2", "it runs through 'gain', a parameter outside of any layer"),
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
    """torch-pruning traces gradients."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        if torch.is_grad_enabled():
            raise RuntimeError("only without gradients")
        return self.fc2(torch.relu(self.fc1(x)))


def test_untraceable_model_is_probed():
    groups, refused = find_channel_groups(_Untraceable(), (torch.randn(2, 4),))
    assert {group.name: group.n_channels for group in groups} == {"fc1": 6}
    assert list(refused) == ["fc2"]


class _BatchBound(_Untraceable):
    def forward(self, x):
        return super().forward(x.view(2, 4))


def test_model_that_can_neither_be_traced_nor_probed_has_no_groups_and_says_so():
    groups, refused = find_channel_groups(_BatchBound(), (torch.randn(2, 4),))
    assert groups == ()
    assert "the model's channels cannot be traced: " in refused[UNTRACED]


def test_find_channel_groups_changes_neither_model_nor_random_state(zoo, model_hash):
    net = zoo("bert_like")
    model = copy.deepcopy(net.model).train()
    before, state = model_hash(model), torch.get_rng_state()
    find_channel_groups(model, net.inputs)
    assert model_hash(model) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.modules())
    assert not any("forward" in vars(module) for module in model.modules())


def test_heads_shrink_with_the_attributes_that_count_them(zoo):
    net = zoo("bert_like")
    group = _groups(net)["layers.0.attention.query"]
    assert group.block == 4
    pruned = copy.deepcopy(net.model)
    cut_channels_(pruned, [(group, np.array([1]))])
    attention = pruned.layers[0].attention
    assert (attention.num_attention_heads, attention.attention_head_size) == (3, 4)
    assert attention.all_head_size == 12
    kept = [0, 1, 2, 3, *range(8, 16)]
    source = net.model.layers[0]
    assert torch.equal(attention.value.weight, source.attention.value.weight[kept])
    assert torch.equal(pruned.layers[0].output.weight, source.output.weight[:, kept])


def test_block_counts_the_channels_of_one_unit(zoo):
    assert _groups(zoo("vit_like"))["blocks.0.qkv"].block == 12
    assert _groups(zoo("glu"))["gated"].block == 2
    assert _groups(zoo("plain"))["conv2"].block == 1


class _Around(nn.Module):
    """A recurrent layer between linear ones."""

    def __init__(self, rnn, width, is_batch_first=True):
        super().__init__()
        self.pre, self.rnn, self.head = nn.Linear(6, 10), rnn, nn.Linear(width, 3)
        self.is_batch_first = is_batch_first

    def forward(self, x):
        x = torch.relu(self.pre(x))
        if self.is_batch_first:
            return self.head(self.rnn(x)[0][:, -1])
        return self.head(self.rnn(x.transpose(0, 1))[0][-1])


class _Sequel(nn.Module):
    """A decoder that starts from the encoder's last state."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = (nn.GRU(6, 8, batch_first=True) for _ in range(2))
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.decoder(x, self.encoder(x)[1])[0][:, -1])


class _States(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.LSTM(6, 8, 2, batch_first=True), nn.Linear(16, 3)

    def forward(self, x):
        hidden, cell = self.rnn(x)[1]
        return self.head(torch.cat([hidden[-1], cell[0]], -1))


class _SharedKeys(nn.Module):
    """Four query heads look at one set of keys and values."""

    def __init__(self):
        super().__init__()
        self.q, self.kv, self.out = nn.Linear(6, 16), nn.Linear(6, 8), nn.Linear(16, 3)

    def forward(self, x):
        q = self.q(x).unflatten(-1, (4, 4)).transpose(1, 2)
        k, v = self.kv(x)[:, None].chunk(2, -1)
        mixed = (q @ k.transpose(-1, -2)).softmax(-1) @ v
        return self.out(mixed.transpose(1, 2).flatten(2)).mean(1)


class _Shuffle(nn.Module):
    """Channels are dealt out to three hands: any cut but an even one deals them wrongly."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.head = (
            nn.Conv2d(3, 12, 1),
            nn.Conv2d(12, 8, 3),
            nn.Linear(8, 3),
        )

    def forward(self, x):
        x = self.conv1(x).unflatten(1, (3, -1)).transpose(1, 2).flatten(1, 2)
        return self.head(torch.relu(self.conv2(x)).mean((2, 3)))


class _GroupedUp(nn.Module):
    """A grouped transposed convolution whose groups and norm groups go together."""

    def __init__(self):
        super().__init__()
        self.conv, self.up = nn.Conv2d(3, 8, 1), nn.ConvTranspose2d(8, 12, 2, 2, groups=4)
        self.norm, self.head = nn.GroupNorm(2, 12), nn.Linear(12, 3)

    def forward(self, x):
        x = self.norm(self.up(torch.relu(self.conv(x))))
        return self.head(torch.relu(x).mean((2, 3)))


class _Gate(nn.Module):
    """One channel gates all: it ties none of them to another."""

    def __init__(self):
        super().__init__()
        self.conv, self.gate, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 1, 3), nn.Linear(8, 3)
        self.norm, self.slope = nn.InstanceNorm2d(8, affine=True), nn.PReLU(8)

    def forward(self, x):
        gate = torch.sigmoid(self.gate(x))
        return self.head((self.slope(self.norm(self.conv(x))) * gate).mean((2, 3)))


@pytest.mark.parametrize(
    ("model", "shape", "groups"),
    [
        (
            _Around(nn.LSTM(10, 8, 2, bidirectional=True, batch_first=True), 16),
            (3, 5, 6),
            "pre rnn",
        ),
        (_Around(nn.GRU(10, 8), 8, is_batch_first=False), (3, 5, 6), "pre rnn"),
        (_Around(nn.RNN(10, 8, 3, bias=False, batch_first=True), 8), (3, 5, 6), "pre rnn"),
        (_Around(nn.LSTM(10, 8, proj_size=4, batch_first=True), 4), (3, 5, 6), "pre"),
        (_Sequel(), (3, 5, 6), "encoder"),
        (_States(), (3, 5, 6), "rnn"),
        (_SharedKeys(), (3, 5, 6), ""),
        (_Shuffle(), (3, 3, 6, 6), "conv2"),
        (_GroupedUp(), (3, 3, 4, 4), "conv"),
        (_Gate(), (3, 3, 6, 6), "conv"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_groups_of_unusual_nets_are_exact(model, shape, groups):
    generator = torch.Generator().manual_seed(0)
    model, x = model.eval(), torch.randn(shape, generator=generator)
    found, refused = find_channel_groups(model, (x,))
    assert " ".join(group.name for group in found) == groups
    assert all(refused.values())
    for group in found:
        channels = np.arange(0, group.n_channels - 1, 3)
        pruned = copy.deepcopy(model)
        cut_channels_(pruned, [(group, channels)])
        with torch.no_grad():
            expected = _masked(model, group, channels)(x)
            torch.testing.assert_close(pruned(x), expected, rtol=1e-4, atol=1e-5)


def test_groups_say_why_keys_shared_by_all_heads_cannot_be_cut():
    _, refused = find_channel_groups(_SharedKeys().eval(), (torch.randn(3, 5, 6),))
    assert refused["q"] == "its channels depend on each other, so none of them can go alone"


def test_groups_say_why_projected_units_cannot_be_cut():
    model = _Around(nn.LSTM(10, 8, proj_size=4, batch_first=True), 4).eval()
    _, refused = find_channel_groups(model, (torch.randn(3, 5, 6),))
    assert refused["rnn"] == "'rnn' projects its hidden units (proj_size)"


def test_tied_weights_stay_one_parameter_when_cut(zoo):
    net = zoo("tied_weights")
    pruned = copy.deepcopy(net.model)
    cut_channels_(pruned, [(_groups(net)["embed"], np.array([0, 5]))])
    assert pruned.head.weight is pruned.embed.weight
    kept = [1, 2, 3, 4, 6, 7]
    assert torch.equal(pruned.embed.weight, net.model.embed.weight[:, kept])


def test_indices_of_follows_channels_to_their_places():
    member = GroupMember(
        layer="fc", side="in", local=np.array([4, 5, 0, 1]), root=np.array([1, 1, 0, 0])
    )
    assert member.indices_of(np.array([1])).tolist() == [4, 5]
    assert member.indices_of(np.array([1, 0])).tolist() == [0, 1, 4, 5]
    assert ChannelGroup(name="g", n_channels=2, members=(member,)).members == (member,)
