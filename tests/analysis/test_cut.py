import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from autocompress.analysis.channel_group import AttributePatch, ChannelGroup, GroupMember
from autocompress.analysis.cut import cut_channels_, doomed_channels
from autocompress.errors import InputError


def _member(layer, side, local, root=None):
    local = np.array(local, dtype=np.int64)
    root = np.arange(len(local)) if root is None else np.array(root)
    return GroupMember(layer=layer, side=side, local=local, root=root)


def _group(*members, n_channels=4, **rest):
    return ChannelGroup(name="g", n_channels=n_channels, members=members, **rest)


class _Lstm(nn.Module):
    def __init__(self, *args, **kwargs):
        super().__init__()
        self.rnn = nn.LSTM(*args, batch_first=True, **kwargs)


def test_cut_of_lstm_units_is_the_lstm_of_the_other_units():
    model, x = _Lstm(3, 4, 2), torch.randn(2, 5, 3)
    reference = copy.deepcopy(model)
    with torch.no_grad():  # unit 1 stays at 0: it gives nothing to the others
        for name, parameter in reference.rnn.named_parameters():
            if "hh" in name and "weight" in name:
                parameter[:, 1] = 0
            if name == "weight_ih_l1":
                parameter[:, 1] = 0
    cut_channels_(model, [(_group(_member("rnn", "out", range(4))), np.array([1]))])
    assert (model.rnn.hidden_size, model.rnn.weight_ih_l0.shape) == (3, (12, 3))
    expected = reference.rnn(x)[0][..., [0, 2, 3]]
    torch.testing.assert_close(model.rnn(x)[0], expected)


def test_cut_lstm_trains_and_loads():
    model = _Lstm(3, 4, 2)
    cut_channels_(model, [(_group(_member("rnn", "out", range(4))), np.array([0]))])
    model.rnn(torch.randn(2, 5, 3))[0].sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    other = _Lstm(3, 3, 2)
    other.load_state_dict(model.state_dict())
    x = torch.randn(2, 5, 3)
    assert torch.equal(other.rnn(x)[0], copy.deepcopy(model).rnn(x)[0])


def test_cut_of_lstm_inputs_slices_columns():
    model = _Lstm(4, 5)
    before = model.rnn.weight_ih_l0.detach().clone()
    cut_channels_(model, [(_group(_member("rnn", "in", range(4))), np.array([3]))])
    assert model.rnn.input_size == 3
    assert torch.equal(model.rnn.weight_ih_l0, before[:, :3])


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Conv2d(4, 8, 3, groups=4), (3, 6, 3)),
        (nn.ConvTranspose2d(4, 8, 3, groups=4), (3, 6, 3)),
    ],
)
def test_cut_of_a_group_of_a_grouped_convolution_removes_it_whole(layer, expected):
    model, x = nn.Sequential(layer), torch.randn(2, 4, 6, 6)
    kept = layer(x)[:, [0, 1, 4, 5, 6, 7]]
    out = _member("0", "out", range(8), np.arange(8) // 2)
    cut_channels_(model, [(_group(_member("0", "in", range(4)), out), np.array([1]))])
    cut = model[0]
    assert (cut.in_channels, cut.out_channels, cut.groups) == expected
    torch.testing.assert_close(model(x[:, [0, 2, 3]]), kept)


def test_cut_of_a_depthwise_convolution_needs_one_side_only():
    model, x = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4)), torch.randn(2, 4, 6, 6)
    kept = model(x)[:, [0, 3]]
    cut_channels_(model, [(_group(_member("0", "out", range(4))), np.array([1, 2]))])
    torch.testing.assert_close(model(x[:, [0, 3]]), kept)


def test_cut_of_group_norm_removes_whole_groups():
    model, x = nn.Sequential(nn.GroupNorm(2, 4)), torch.randn(2, 4, 3)
    nn.init.normal_(model[0].weight)
    kept = model(x)[:, 2:]
    cut_channels_(
        model, [(_group(_member("0", "out", range(4), [0, 0, 1, 1]), n_channels=2), np.array([0]))]
    )
    assert (model[0].num_groups, model[0].num_channels) == (1, 2)
    torch.testing.assert_close(model(x[:, 2:]), kept)


def test_cut_keeps_frozen_parameters_frozen_and_buffers_buffers():
    model = nn.Sequential(nn.BatchNorm1d(4)).requires_grad_(False)
    cut_channels_(model, [(_group(_member("0", "out", range(4))), np.array([0]))])
    assert not model[0].weight.requires_grad
    assert "running_var" in dict(model[0].named_buffers())
    assert model[0].num_features == 3


def test_cut_sets_attributes_to_what_is_left():
    model = nn.Sequential(nn.Linear(3, 8))
    model.width, model[0].n_heads = 8, 4
    group = _group(
        _member("0", "out", range(8), np.arange(8) // 2),
        attributes=(
            AttributePatch(module="", attribute="width", per_channel=2),
            AttributePatch(module="0", attribute="n_heads", per_channel=1),
        ),
    )
    cut_channels_(model, [(group, np.array([2]))])
    assert (model.width, model[0].n_heads, model[0].out_features) == (6, 3, 6)


def test_cut_refuses_a_weight_that_is_computed():
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 4)))
    with pytest.raises(InputError, match="`weight` of a ParametrizedLinear must be a parameter"):
        cut_channels_(model, [(_group(_member("0", "out", range(4))), np.array([0]))])


def test_doomed_channels_join_all_groups_that_end_in_a_layer():
    modules = {"fc": nn.Linear(8, 2)}
    cuts = [
        (_group(_member("fc", "in", [0, 1, 2, 3])), np.array([1])),
        (_group(_member("fc", "in", [4, 5, 6, 7])), np.array([3, 0])),
    ]
    assert doomed_channels(modules, cuts)["fc"]["in"].tolist() == [1, 4, 7]
