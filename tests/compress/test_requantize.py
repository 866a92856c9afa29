"""Grids of other bits for weights that are on grids already."""

import copy

import pytest
import torch
from torch import nn

from autocompress.compress.compressed_layers import mask_of, quantizer_of, set_mask_
from autocompress.compress.input_quantizer import InputQuantizer
from autocompress.compress.quantize import quantize_, requantize_
from autocompress.plan import LayerPlan


def put(model, layers):
    for name, plan in layers.items():
        quantize_(model, name, plan)
    return model


def bits_of(model, name):
    return quantizer_of(model.get_submodule(name)).bits


def test_requantize_gives_the_grid_a_fresh_start_from_the_weights_would_have():
    plan = LayerPlan(weight_bits=4, granularity="tensor", quantizer="kmeans")
    model = put(nn.Sequential(nn.Linear(20, 6)), {"0": plan})
    with torch.no_grad():
        model[0].weight.mul_(3.0)  # as if training had moved them
    plain = nn.Sequential(nn.Linear(20, 6))
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if "quantizer" not in k})
    coarse = LayerPlan(weight_bits=2, granularity="tensor", quantizer="kmeans")
    requantize_(model, {"0": coarse})
    put(plain, {"0": coarse})
    assert bits_of(model, "0") == 2
    x = torch.randn(5, 20)
    assert torch.equal(model(x), plain(x))


def test_requantize_keeps_masks_and_input_grids():
    model = nn.Sequential(nn.Linear(20, 6))
    mask = torch.rand(6, 20) > 0.5
    set_mask_(model[0], mask)
    put(model, {"0": LayerPlan(weight_bits=4, activation_bits=8)})
    grid = model[0].input_quantizer
    assert isinstance(grid, InputQuantizer)
    model(torch.randn(5, 20))
    grid.settle()
    requantize_(model, {"0": LayerPlan(weight_bits=2, activation_bits=8)})
    assert model[0].input_quantizer is grid
    assert not grid.is_observing
    assert torch.equal(mask_of(model[0], "weight"), mask)
    used = quantizer_of(model[0])(model[0].weight, mask_of(model[0], "weight"))
    assert used[~mask].abs().max() == 0.0
    assert len(used[0].unique()) <= 4


def test_requantize_leaves_alone_what_has_its_bits_or_is_float():
    model = nn.Sequential(nn.Linear(9, 9), nn.Linear(9, 9))
    put(model, {"0": LayerPlan(weight_bits=4)})
    before = quantizer_of(model[0])
    requantize_(model, {"0": LayerPlan(weight_bits=4), "1": LayerPlan(weight_bits=4)})
    assert quantizer_of(model[0]) is before
    assert type(model[1]) is nn.Linear
    requantize_(model, {"0": LayerPlan()})
    assert quantizer_of(model[0]) is before


def test_requantize_takes_all_factors_of_a_layer():
    model = nn.Sequential(nn.Sequential(nn.Linear(12, 4), nn.Linear(4, 8)), nn.ReLU())
    put(model, {"0": LayerPlan(weight_bits=4)})
    requantize_(model, {"0": LayerPlan(weight_bits=3)})
    assert [bits_of(model, name) for name in ("0.0", "0.1")] == [3, 3]


def test_requantize_takes_every_weight_of_a_recurrent_layer(zoo):
    model = copy.deepcopy(zoo("lstm").model)
    name = next(n for n, m in model.named_modules() if isinstance(m, nn.LSTM))
    put(model, {name: LayerPlan(weight_bits=4)})
    layer = model.get_submodule(name)
    requantize_(model, {name: LayerPlan(weight_bits=2)})
    found = [m.bits for n, m in layer.named_children() if n.endswith("_quantizer")]
    assert found == [2] * len(found)
    assert len(found) >= 2
    model(*zoo("lstm").inputs)


@pytest.mark.parametrize("bits", [(2, 3), (3, 2)])
def test_requantize_lets_the_first_owner_decide_as_quantize_does(bits):
    def tied():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(9, 9), nn.Linear(9, 9))
        model[1].weight = model[0].weight
        return model

    wanted = {name: LayerPlan(weight_bits=b) for name, b in zip("01", bits, strict=True)}
    model = put(tied(), {name: LayerPlan(weight_bits=4) for name in "01"})
    for floor in (3, 2):
        level = {n: LayerPlan(weight_bits=max(floor, p.weight_bits)) for n, p in wanted.items()}
        requantize_(model, level)
        assert quantizer_of(model[0]) is quantizer_of(model[1])
    expected = put(tied(), wanted)
    assert bits_of(model, "0") == bits_of(expected, "0") == bits[0]
    x = torch.randn(4, 9)
    assert torch.equal(model(x), expected(x))


def test_requantize_takes_a_shared_weights_bits_from_its_source():
    model = nn.Sequential(nn.Linear(9, 9), nn.Linear(9, 9))
    model[0].weight = model[1].weight
    put(model, {"0": LayerPlan(weight_bits=4), "1": LayerPlan(weight_bits=4)})
    layers = {"0": LayerPlan(weight_bits=2, shared_with="1"), "1": LayerPlan(weight_bits=3)}
    requantize_(model, layers)
    assert quantizer_of(model[0]) is quantizer_of(model[1])
    assert bits_of(model, "1") == 3


def test_requantize_passes_over_layers_the_model_has_lost():
    model = put(nn.Sequential(nn.Linear(9, 9)), {"0": LayerPlan(weight_bits=4)})
    requantize_(model, {"block.conv": LayerPlan(weight_bits=2), "0": LayerPlan(weight_bits=2)})
    assert bits_of(model, "0") == 2
