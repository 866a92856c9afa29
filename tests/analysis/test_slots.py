import numpy as np
import pytest
import torch
from torch import nn

from autocompress.analysis.slots import CUTTABLE, is_depthwise, slots_of, width_of


def _slots(layer, side):
    return {(slot.tensor, slot.dim, slot.is_read) for slot in slots_of(layer, side)}


@pytest.mark.parametrize(
    ("layer", "side", "expected"),
    [
        (nn.Linear(4, 6), "out", {("weight", 0, False), ("bias", 0, False)}),
        (nn.Linear(4, 6), "in", {("weight", 1, True)}),
        (nn.Conv2d(4, 6, 3, bias=False), "out", {("weight", 0, False)}),
        (nn.Conv2d(4, 6, 3), "in", {("weight", 1, True)}),
        (nn.ConvTranspose2d(4, 6, 3), "out", {("weight", 1, False), ("bias", 0, False)}),
        (nn.ConvTranspose2d(4, 6, 3), "in", {("weight", 0, True)}),
        (nn.Conv2d(4, 6, 3, groups=2), "in", set()),
        (nn.ConvTranspose2d(4, 6, 3, groups=2), "in", {("weight", 0, False)}),
        (nn.ConvTranspose2d(4, 6, 3, groups=2), "out", {("bias", 0, False)}),
        (nn.Embedding(9, 4), "out", {("weight", 1, False)}),
        (nn.GroupNorm(2, 4), "out", {("weight", 0, False), ("bias", 0, False)}),
        (nn.InstanceNorm2d(4), "out", set()),
        (nn.PReLU(4), "out", {("weight", 0, False)}),
        (nn.PReLU(), "out", set()),
        (nn.ReLU(), "out", set()),
        (
            nn.GRU(3, 5, bidirectional=True),
            "in",
            {("weight_ih_l0", 1, True)} | {("weight_ih_l0_reverse", 1, True)},
        ),
    ],
)
def test_slots_say_where_channels_lie(layer, side, expected):
    assert _slots(layer, side) == expected


def test_slots_of_a_recurrent_layer_cover_every_gate():
    slots = {(s.tensor, s.dim): s for s in slots_of(nn.LSTM(3, 5, 2), "out")}
    unit = np.array([2])
    assert slots["weight_ih_l0", 0].indices(unit).tolist() == [2, 7, 12, 17]
    assert slots["weight_hh_l1", 1].indices(unit).tolist() == [2]
    assert slots["weight_ih_l1", 1].is_read
    assert ("weight_ih_l0", 1) not in slots


def test_slots_of_a_bidirectional_layer_fold_both_halves():
    slots = {(s.tensor, s.dim): s for s in slots_of(nn.GRU(3, 5, 2, bidirectional=True), "out")}
    assert slots["weight_ih_l1", 1].indices(np.array([1, 6])).tolist() == [1, 6]
    assert slots["weight_hh_l0_reverse", 0].indices(np.array([6])).tolist() == [1, 6, 11]


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(4, 6), (2, 4)),
        (nn.Conv1d(4, 6, 3), (2, 4, 5)),
        (nn.ConvTranspose1d(4, 6, 3), (2, 4, 5)),
        (nn.LSTM(4, 3, bidirectional=True), (2, 5, 4)),
    ],
)
def test_width_of_is_what_the_layer_takes_and_returns(layer, shape):
    output = layer(torch.randn(shape))
    output = output[0] if isinstance(output, tuple) else output
    dim = 1 if isinstance(layer, nn.Conv1d | nn.ConvTranspose1d) else -1
    assert width_of(layer, "in") == shape[dim]
    assert width_of(layer, "out") == output.shape[dim]


def test_slots_fit_their_tensors(zoo_net):
    for layer in zoo_net.model.modules():
        for side in ("in", "out") if isinstance(layer, CUTTABLE) else ():
            channels = np.arange(width_of(layer, side))
            for slot in slots_of(layer, side):
                length = getattr(layer, slot.tensor).shape[slot.dim]
                assert slot.indices(channels).tolist() == list(range(length))


def test_is_depthwise_needs_one_output_per_input():
    assert is_depthwise(nn.Conv2d(4, 4, 3, groups=4))
    assert not is_depthwise(nn.Conv2d(4, 8, 3, groups=4))
    assert not is_depthwise(nn.Conv2d(1, 1, 3))
