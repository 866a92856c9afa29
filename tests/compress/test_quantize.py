import copy

import numpy as np
import pytest
import torch
from torch import nn

from autocompress.compress.codes import CodebookTensor, GridTensor, HashedTensor, QuantizedTensor
from autocompress.compress.compressed_layers import COMPRESSED, quantizer_of, set_mask_
from autocompress.compress.input_quantizer import InputQuantizer
from autocompress.compress.quantize import freeze_, quantize_
from autocompress.compress.quantizers.registry import QUANTIZERS
from autocompress.compress.quantizers.uniform import UniformQuantizer
from autocompress.plan import LayerPlan
from tests.needs import need_extra

GRANULARITY = {"hashed": "tensor"}


def _plan(bits=4, **choices):
    return LayerPlan(weight_bits=bits, **choices)


def _settle(model):
    for module in model.modules():
        if isinstance(module, InputQuantizer):
            module.settle()


@pytest.mark.parametrize("quantizer", QUANTIZERS)
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(6, 4), (2, 6)),
        (nn.Conv1d(6, 4, 3), (2, 6, 5)),
        (nn.Conv2d(6, 4, 3, padding=1, padding_mode="reflect"), (2, 6, 5, 5)),
        (nn.Conv2d(6, 6, 3, groups=6, bias=False), (2, 6, 5, 5)),
        (nn.Conv3d(2, 4, 2), (2, 2, 4, 4, 4)),
        (nn.ConvTranspose2d(6, 4, 2, stride=2), (2, 6, 5, 5)),
    ],
    ids=["linear", "conv1d", "conv2d", "depthwise", "conv3d", "transposed"],
)
def test_frozen_layer_computes_what_the_quantized_one_did(layer, shape, quantizer):
    if quantizer == "nni_qat":
        need_extra("nni")
    model = nn.Sequential(copy.deepcopy(layer))
    x = torch.randn(shape)
    granularity = GRANULARITY.get(quantizer, "channel")
    assert quantize_(model, "0", _plan(quantizer=quantizer, granularity=granularity)) == ()
    quantized = model(x).detach()
    weights, activations = freeze_(model)
    assert type(model[0]) is type(layer)
    assert activations == {}
    assert np.array_equal(model[0].weight.detach().numpy(), weights["0"].dequantize())
    assert set(model.state_dict()) == set(nn.Sequential(layer).state_dict())
    assert torch.equal(model(x), quantized)


@pytest.mark.parametrize(
    ("quantizer", "granularity", "kind"),
    [
        ("uniform", "tensor", QuantizedTensor),
        ("uniform", "group:8", GridTensor),
        ("kmeans", "channel", CodebookTensor),
        ("hashed", "tensor", HashedTensor),
    ],
)
def test_plan_decides_how_a_weight_is_stored(quantizer, granularity, kind):
    model = nn.Sequential(nn.Linear(20, 4))
    assert quantize_(model, "0", _plan(3, quantizer=quantizer, granularity=granularity)) == ()
    weights, _ = freeze_(model)
    assert type(weights["0"]) is kind
    assert weights["0"].bits == 3


def test_quantize_keeps_parameters_the_same_objects():
    model = nn.Sequential(nn.Linear(6, 4))
    weight, bias = model[0].weight, model[0].bias
    quantize_(model, "0", _plan(activation_bits=8))
    assert model[0].weight is weight
    assert model[0].bias is bias


def test_quantize_does_nothing_for_float_weights():
    model = nn.Sequential(nn.Linear(6, 4))
    assert quantize_(model, "0", LayerPlan(quantizer="kmeans", activation_bits=8)) == ()
    assert type(model[0]) is nn.Linear


def test_quantize_takes_all_factors_of_a_layer():
    model = nn.Sequential(nn.Sequential(nn.Linear(6, 2), nn.Linear(2, 4)))
    assert quantize_(model, "0", _plan(activation_bits=8)) == ()
    assert [type(m) for m in model[0]] == [COMPRESSED[nn.Linear]] * 2
    model(torch.randn(3, 6))
    _settle(model)
    weights, activations = freeze_(model)
    assert set(weights) == set(activations) == {"0.0", "0.1"}


def test_factor_that_cannot_take_a_quantizer_is_uniform_and_says_so():
    model = nn.Sequential(nn.Sequential(nn.Linear(20, 4), nn.Linear(4, 6)))
    (note,) = quantize_(model, "0", _plan(granularity="group:16"))
    assert note == (
        "quantizer=uniform, granularity=group:16 of '0.1' skipped: "
        "group:16 needs channels of more weights than 4; it is uniform per channel instead"
    )
    weights, _ = freeze_(model)
    assert type(weights["0.0"]) is GridTensor
    assert type(weights["0.1"]) is QuantizedTensor


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_weights_are_stored_by_parameter_name(kind):
    model = nn.ModuleDict({"rnn": kind(6, 4, 2)})
    x = torch.randn(3, 2, 6)
    assert quantize_(model, "rnn", _plan(quantizer="kmeans")) == ()
    expected = model["rnn"](x)[0].detach()
    weights, _ = freeze_(model)
    assert set(weights) == {f"rnn.weight_{part}_l{i}" for part in ("ih", "hh") for i in (0, 1)}
    assert type(model["rnn"]) is kind
    assert torch.equal(model["rnn"](x)[0], expected)


def test_recurrent_weights_that_cannot_be_hashed_are_uniform():
    model = nn.ModuleDict({"rnn": nn.GRU(6, 4)})
    notes = quantize_(model, "rnn", _plan(quantizer="hashed", granularity="tensor"))
    assert [note.split("'")[1] for note in notes] == ["rnn.weight_ih_l0", "rnn.weight_hh_l0"]
    assert isinstance(quantizer_of(model["rnn"], "weight_ih_l0"), UniformQuantizer)


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (nn.Embedding(9, 8), "an embedding takes indices"),
        (nn.GRU(4, 4), "recurrent layers have no integer kernels"),
        (nn.ConvTranspose1d(4, 4, 2), "transposed convolutions have no integer kernels"),
    ],
)
def test_input_grids_are_skipped_where_there_are_no_integer_kernels(layer, why):
    model = nn.Sequential(layer)
    (note,) = quantize_(model, "0", _plan(8, activation_bits=8))
    assert note.startswith("activation_bits=8 of '0' skipped: ")
    assert why in note
    weights, activations = freeze_(model)
    assert weights
    assert activations == {}


@pytest.mark.parametrize(
    ("quantizer", "granularity", "bits"),
    [
        ("kmeans", "channel", 4),
        ("equal_frequency", "tensor", 2),
        ("uniform", "group:8", 4),
        ("uniform", "group:8", 1),
        ("uniform_asymmetric", "channel", 8),
        ("power_of_two", "channel", 5),
        ("additive_power_of_two", "tensor", 7),
        ("hashed", "tensor", 4),
    ],
)
def test_input_grids_are_skipped_where_the_weight_has_no_integer_form(quantizer, granularity, bits):
    model = nn.Sequential(nn.Linear(20, 6))
    plan = _plan(bits, quantizer=quantizer, granularity=granularity, activation_bits=8)
    (note,) = quantize_(model, "0", plan)
    assert note == (
        "activation_bits=8 of '0' skipped: integer kernels need a weight of int8 codes and a scale "
        f"per channel, and {quantizer} in {bits} bits per {granularity.split(':')[0]} is none"
    )
    weights, activations = freeze_(model)
    assert (set(weights), activations) == ({"0"}, {})


def test_input_grid_follows_the_quantizer_that_a_weight_got_instead():
    model = nn.Sequential(nn.Sequential(nn.Linear(20, 4), nn.Linear(4, 6)))
    notes = quantize_(model, "0", _plan(granularity="group:16", activation_bits=8))
    assert [note.split(" skipped")[0] for note in notes] == [
        "activation_bits=8 of '0.0'",
        "quantizer=uniform, granularity=group:16 of '0.1'",
    ]
    assert "input_quantizer" not in model[0][0]._modules
    assert isinstance(model[0][1].input_quantizer, InputQuantizer)


def test_input_grid_follows_the_quantizer_of_another_owner():
    model = nn.ModuleDict({"a": nn.Linear(8, 8), "b": nn.Linear(8, 8)})
    model["b"].weight = model["a"].weight
    quantize_(model, "a", _plan(4, quantizer="kmeans"))
    notes = quantize_(model, "b", _plan(4, activation_bits=8))
    assert "kmeans in 4 bits per channel is none" in notes[1]
    assert "input_quantizer" not in model["b"]._modules


def _tied():
    model = nn.ModuleDict({"embed": nn.Embedding(11, 8), "head": nn.Linear(8, 11, bias=False)})
    model["head"].weight = model["embed"].weight
    return model


def test_tied_layers_share_one_quantizer_one_mask_and_one_stored_weight():
    model = _tied()
    set_mask_(model["embed"], torch.rand(11, 8) > 0.5)
    assert quantize_(model, "embed", _plan(3)) == ()
    assert quantizer_of(model["head"]) is quantizer_of(model["embed"])
    indices = torch.arange(11)
    rows = model["embed"](indices)
    assert torch.equal(model["head"](torch.eye(8)).T, rows)
    copied = copy.deepcopy(model)
    assert quantizer_of(copied["head"]) is quantizer_of(copied["embed"])
    weights, _ = freeze_(model)
    assert weights["head"] is weights["embed"]
    assert model["head"].weight is model["embed"].weight
    assert torch.equal(model["embed"](indices), rows)


def test_tied_layers_are_stored_once_even_where_rounding_twice_would_change_them():
    """A codebook that has moved since rounds its own values elsewhere."""
    model = _tied()
    quantize_(model, "embed", _plan(3, quantizer="hashed", granularity="tensor"))
    expected = model["embed"](torch.arange(11)).detach()
    freeze_(model)
    assert torch.equal(model["head"].weight.detach(), expected)


def test_second_owner_of_a_weight_keeps_the_first_one_s_choice_and_says_so():
    model = _tied()
    quantize_(model, "embed", _plan(3))
    assert quantize_(model, "head", _plan(3)) == ()
    (note,) = quantize_(model, "head", _plan(8))
    assert "weight_bits=8 of 'head' skipped" in note
    assert "quantized to 3 bits already" in note


def test_second_owner_of_a_weight_can_have_an_input_grid_of_its_own():
    model = nn.ModuleDict({"a": nn.Linear(8, 8), "b": nn.Linear(8, 8)})
    model["b"].weight = model["a"].weight
    quantize_(model, "a", _plan(8))
    assert quantize_(model, "b", _plan(8, activation_bits=8)) == ()
    model["b"](torch.randn(2, 8))
    _settle(model)
    weights, activations = freeze_(model)
    assert set(weights) == {"a", "b"}
    assert set(activations) == {"b"}


def test_weight_that_a_stranger_owns_as_well_stays_float():
    class Stranger(nn.Module):
        def __init__(self, weight):
            super().__init__()
            self.weight = weight

    layer = nn.Linear(8, 8)
    model = nn.ModuleDict({"layer": layer, "stranger": Stranger(layer.weight)})
    notes = quantize_(model, "layer", _plan(4, activation_bits=8))
    assert "a Stranger, which cannot take it, owns the same weight" in notes[0]
    assert "its weight stays float" in notes[1]
    assert type(layer) is nn.Linear


@pytest.mark.parametrize("quantizer", [name for name, s in QUANTIZERS.items() if s.takes_masks])
def test_masks_stay_through_quantizing_and_freezing(quantizer):
    if quantizer == "nni_qat":
        need_extra("nni")
    model, mask = nn.Sequential(nn.Linear(20, 6)), torch.rand(6, 20) > 0.7
    set_mask_(model[0], mask)
    assert quantize_(model, "0", _plan(3, quantizer=quantizer)) == ()
    weights, _ = freeze_(model)
    assert (model[0].weight[~mask] == 0).all()
    assert (weights["0"].dequantize()[~mask.numpy()] == 0).all()
    assert (model[0].weight[mask] != 0).any()


def test_masked_weights_are_not_hashed():
    model, mask = nn.Sequential(nn.Linear(20, 6)), torch.rand(6, 20) > 0.5
    set_mask_(model[0], mask)
    (note,) = quantize_(model, "0", _plan(3, quantizer="hashed", granularity="tensor"))
    assert "hashed cannot keep single weights at 0" in note
    assert isinstance(quantizer_of(model[0]), UniformQuantizer)


def test_freeze_multiplies_float_weights_by_their_masks():
    model, mask = nn.Sequential(nn.Linear(20, 6), nn.LSTM(6, 4)), torch.rand(6, 20) > 0.5
    weight = model[0].weight.detach().clone()
    set_mask_(model[0], mask)
    set_mask_(model[1], torch.zeros(16, 6, dtype=torch.bool), "weight_ih_l0")
    weights, activations = freeze_(model)
    assert (weights, activations) == ({}, {})
    assert (type(model[0]), type(model[1])) == (nn.Linear, nn.LSTM)
    assert torch.equal(model[0].weight.detach(), weight * mask)
    assert (model[1].weight_ih_l0 == 0).all()
    assert (model[1].weight_hh_l0 != 0).any()


def test_quantized_layer_learns():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4))
    quantize_(model, "0", _plan(2))
    x, target = torch.randn(32, 6), torch.randn(32, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    losses = []
    for _ in range(30):
        loss = (model(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[-5:]) < losses[0]


@pytest.fixture
def _no_fused_encoder():
    """In eval mode torch's fused kernel would read weights past the layers that hold them."""
    is_fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(is_fused)


@pytest.mark.usefixtures("_no_fused_encoder")
def test_nets_of_all_kinds_run_quantized_and_frozen(zoo_net):
    model = copy.deepcopy(zoo_net.model)
    names = [name for name, module in model.named_modules() if type(module) in COMPRESSED]
    for name in names:
        quantize_(model, name, _plan(3, quantizer="kmeans"))
    with torch.no_grad():
        expected = model(*zoo_net.inputs)
        weights, _ = freeze_(model)
        torch.testing.assert_close(model(*zoo_net.inputs), expected)
    assert weights
