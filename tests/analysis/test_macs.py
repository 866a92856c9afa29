import pytest
import torch
import torch.nn.functional as F
from torch import nn

from autocompress.analysis.profile import count_macs


def _total(model, *shape):
    return count_macs(model, (torch.randn(*shape),))[""]


def test_macs_of_a_convolution_are_its_closed_form():
    conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)  # 8 x 8 -> 4 x 4
    assert _total(conv, 2, 3, 8, 8) == 4 * 4 * 8 * 3 * 9


def test_macs_of_a_grouped_convolution_are_its_closed_form():
    assert _total(nn.Conv2d(8, 16, 3, padding=1, groups=4), 2, 8, 5, 5) == 25 * 16 * 2 * 9


def test_macs_of_a_transposed_convolution_are_its_closed_form():
    assert _total(nn.ConvTranspose2d(16, 8, 2, stride=2), 2, 16, 4, 4) == 16 * 16 * 8 * 4


def test_macs_of_a_linear_layer_count_every_position():
    assert _total(nn.Linear(12, 7), 5, 6, 12) == 6 * 12 * 7


def test_macs_of_an_lstm_count_four_gates_per_step():
    model = nn.Sequential(nn.LSTM(12, 8, batch_first=True))
    assert _total(model, 3, 6, 12) == 6 * 4 * 8 * (12 + 8)


class _Attention(nn.Module):
    def forward(self, x):
        return F.scaled_dot_product_attention(x, x, x)


def test_macs_of_attention_count_both_products():
    heads, length, width = 2, 6, 8
    assert _total(_Attention(), 3, heads, length, width) == 2 * heads * length * length * width


def test_macs_of_a_fused_encoder_layer_are_its_closed_form():
    length, width, inner = 6, 12, 24
    layer = nn.TransformerEncoderLayer(width, 2, inner, batch_first=True)
    projections = 4 * length * width * width
    products = 2 * length * length * width
    feed_forward = 2 * length * width * inner
    assert _total(layer, 3, length, width) == projections + products + feed_forward


def test_macs_are_of_one_example(zoo_net):
    first = tuple(tensor[:1] for tensor in zoo_net.inputs)
    assert count_macs(zoo_net.model, first) == count_macs(zoo_net.model, zoo_net.inputs)


def test_macs_of_parts_add_up():
    model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 3))
    macs = count_macs(model, (torch.randn(2, 12),))
    assert macs == {"": 240, "0": 192, "2": 48}


class _Branches(nn.Module):
    """Its control flow needs values, which shapes alone do not have."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return self.fc(x) if float(x.sum()) > 0 else self.fc(self.fc(x))


def test_macs_are_counted_on_values_when_shapes_are_not_enough():
    macs = count_macs(_Branches(), (torch.ones(2, 4),))
    assert macs[""] == 16


@pytest.mark.parametrize("is_training", [True, False])
def test_count_macs_changes_nothing(is_training, zoo, model_hash):
    net = zoo("plain")
    net.model.train(is_training)
    before = model_hash(net.model)
    try:
        count_macs(net.model, net.inputs)
        assert model_hash(net.model) == before
        assert net.model.training is is_training
    finally:
        net.model.eval()


class _CalledOnAParameter(nn.Module):
    """As DeBERTa projects its table of relative positions."""

    def __init__(self):
        super().__init__()
        self.table, self.project = nn.Parameter(torch.randn(5, 4)), nn.Linear(4, 3)

    def forward(self, x):
        return x @ self.project(self.table).T


def test_macs_of_a_layer_that_is_called_on_a_parameter_are_counted():
    assert _total(_CalledOnAParameter(), 2, 3) == 5 * 4 * 3 + 3 * 5
