import copy

import pytest
import torch
from torch import nn

from autocompress.compress.quantize import quantize_
from autocompress.plan import LayerPlan
from autocompress.train.channel_weights import channel_rows, scale_channels_, trained_weights

IMAGE, ROW = torch.randn(2, 4, 7, 7), torch.randn(2, 4)
LAYERS = {
    "linear": (nn.Linear(4, 6), ROW, -1),
    "conv1d": (nn.Conv1d(4, 6, 3), torch.randn(2, 4, 7), 1),
    "conv2d": (nn.Conv2d(4, 6, 3), IMAGE, 1),
    "conv3d": (nn.Conv3d(4, 6, 3), torch.randn(2, 4, 5, 5, 5), 1),
    "no bias": (nn.Conv2d(4, 6, 3, bias=False), IMAGE, 1),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2), IMAGE, 1),
    "depthwise": (nn.Conv2d(4, 4, 3, groups=4), IMAGE, 1),
    "channels last": (nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last), IMAGE, 1),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2), IMAGE, 1),
    "transposed 1d": (nn.ConvTranspose1d(4, 6, 3), torch.randn(2, 4, 7), 1),
    "transposed grouped": (nn.ConvTranspose2d(4, 6, 3, groups=2), IMAGE, 1),
    "transposed channels last": (
        nn.ConvTranspose2d(4, 6, 3, groups=2).to(memory_format=torch.channels_last),
        IMAGE,
        1,
    ),
    "embedding": (nn.Embedding(7, 6), torch.randint(0, 7, (2, 5)), -1),
}


@pytest.mark.parametrize("name", LAYERS)
def test_scaling_channels_scales_the_output(name):
    layer, x, dim = LAYERS[name]
    scaled = copy.deepcopy(layer)
    output = layer(x)
    factors = torch.rand(output.shape[dim])
    scale_channels_(scaled, factors)
    shape = [1] * output.ndim
    shape[dim] = -1
    torch.testing.assert_close(scaled(x), output * factors.reshape(shape))


@pytest.mark.parametrize("name", LAYERS)
def test_a_row_holds_the_weights_of_its_channel_and_no_other(name):
    """The gradient of one channel's output reaches the weights of its row only, and all of them."""
    layer, x, dim = copy.deepcopy(LAYERS[name][0]), *LAYERS[name][1:]
    output = layer(x)
    for channel in range(output.shape[dim]):
        (grad,) = torch.autograd.grad(
            output.select(dim, channel).square().sum(), layer.weight, retain_graph=True
        )
        rows = channel_rows(layer, "weight", grad)
        assert rows.shape == (output.shape[dim], layer.weight.numel() // output.shape[dim])
        if name != "embedding":  # rows of the table that no input asks for get none
            assert bool((rows[channel] != 0).all())
        rows = torch.cat([rows[:channel], rows[channel + 1 :]])
        assert bool((rows == 0).all())


@pytest.mark.parametrize(
    ("layer", "name", "n_gates"),
    [
        (nn.LSTM(3, 5), "weight_ih_l0", 4),
        (nn.LSTM(3, 5), "weight_hh_l0", 4),
        (nn.GRU(3, 5), "weight_ih_l0", 3),
        (nn.RNN(3, 5), "weight_hh_l0", 1),
        (nn.LSTMCell(3, 5), "weight_ih", 4),
        (nn.GRUCell(3, 5), "weight_hh", 3),
    ],
)
def test_a_row_of_a_recurrent_layer_holds_all_gates_of_a_unit(layer, name, n_gates):
    weight = getattr(layer, name).detach()
    rows = channel_rows(layer, name, weight)
    for unit in range(5):
        gates = [weight[gate * 5 + unit] for gate in range(n_gates)]
        assert torch.equal(rows[unit], torch.cat(gates))


def test_a_projection_has_one_row_for_each_of_its_outputs():
    layer = nn.LSTM(3, 5, proj_size=2)
    weight = layer.weight_hr_l0.detach()
    assert torch.equal(channel_rows(layer, "weight_hr_l0", weight), weight)


class _Everything(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.conv, self.up = (
            nn.Linear(4, 3),
            nn.Conv2d(3, 4, 3),
            nn.ConvTranspose1d(3, 4, 3),
        )
        self.embed, self.rnn, self.cell = nn.Embedding(5, 4), nn.LSTM(4, 3), nn.GRUCell(4, 3)
        self.attention = nn.MultiheadAttention(4, 2, add_bias_kv=True)
        self.norm, self.batch_norm = nn.LayerNorm([4, 4]), nn.BatchNorm2d(4)
        self.free = nn.Parameter(torch.randn(3, 3))
        self.tied = nn.Linear(4, 5, bias=False)
        self.tied.weight = self.embed.weight
        self.frozen = nn.Linear(4, 4).requires_grad_(False)


def test_weights_are_those_of_layers_without_biases_and_norms():
    model = _Everything()
    names = {id(p): name for name, p in model.named_parameters()}
    assert sorted(names[id(weight)] for _, _, weight in trained_weights(model)) == [
        "attention.in_proj_weight",
        "attention.out_proj.weight",
        "cell.weight_hh",
        "cell.weight_ih",
        "conv.weight",
        "embed.weight",
        "fc.weight",
        "rnn.weight_hh_l0",
        "rnn.weight_ih_l0",
        "up.weight",
    ]


def test_weights_of_compressed_layers_are_found_and_their_quantizers_left_out():
    model = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 3))
    quantize_(model, "0", LayerPlan(weight_bits=4))
    found = [weight for _, _, weight in trained_weights(model)]
    assert [id(weight) for weight in found] == [id(model[0].weight), id(model[1].weight)]
