import copy

import pytest
import torch
from torch import nn

from autocompress.compress.compressed_layers import (
    COMPRESSED,
    channel_axis,
    compress_layer_,
    is_compressed,
    mask_of,
    quantizer_of,
    restore_layer_,
    set_mask_,
    set_quantizer_,
    weight_parameters,
)
from autocompress.compress.quantizers.registry import find_quantizer, parse_granularity
from autocompress.errors import InputError

# torch says so of any projected LSTM
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")

IMAGES, INDICES = torch.randn(2, 4, 6, 6), torch.randint(0, 11, (2, 5))
SEQUENCES = torch.randn(2, 5, 4)
CASES = {
    "linear": (nn.Linear(4, 6), SEQUENCES),
    "conv1d": (nn.Conv1d(5, 6, 3), SEQUENCES),
    "conv2d": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), IMAGES),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2, stride=2, bias=False), IMAGES),
    "depthwise": (nn.Conv2d(4, 4, 3, groups=4, dilation=2), IMAGES),
    "conv3d": (nn.Conv3d(2, 4, 2), torch.randn(1, 2, 4, 4, 4)),
    "transposed1d": (nn.ConvTranspose1d(5, 6, 3, stride=2), SEQUENCES),
    "transposed2d": (nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1), IMAGES),
    "transposed_grouped": (nn.ConvTranspose2d(4, 6, 3, groups=2), IMAGES),
    "transposed3d": (nn.ConvTranspose3d(2, 4, 2), torch.randn(1, 2, 3, 3, 3)),
    "embedding": (nn.Embedding(11, 6, padding_idx=0), INDICES),
    "lstm": (nn.LSTM(4, 3, 2, batch_first=True, bidirectional=True), SEQUENCES),
    "lstm_projected": (nn.LSTM(4, 6, proj_size=3), SEQUENCES),
    "gru": (nn.GRU(4, 3, bias=False), SEQUENCES),
    "rnn": (nn.RNN(4, 3, 2), SEQUENCES),
}
each_layer = pytest.mark.parametrize(("layer", "x"), CASES.values(), ids=CASES)


def _output(layer, x):
    outputs = layer(x)
    return outputs[0] if isinstance(outputs, tuple) else outputs


def _masks(layer, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(layer.get_parameter(name).shape, generator=generator) > 0.5
        for name in weight_parameters(layer)
    }


def _quantize_(layer, bits=3):
    for name in weight_parameters(layer):
        weight, mask = layer.get_parameter(name), mask_of(layer, name)
        make = find_quantizer("uniform").make
        axis = channel_axis(layer)
        set_quantizer_(layer, make(weight, bits, parse_granularity("channel"), axis, mask), name)


@each_layer
def test_layer_without_mask_and_quantizer_computes_as_before(layer, x):
    compressed = copy.deepcopy(layer)
    compress_layer_(compressed)
    compress_layer_(compressed)
    assert type(compressed) is COMPRESSED[type(layer)]
    assert isinstance(compressed, type(layer))
    assert torch.equal(_output(compressed, x), _output(layer, x))


@each_layer
@pytest.mark.parametrize("is_masked", [False, True])
@pytest.mark.parametrize("is_quantized", [False, True])
def test_layer_computes_as_the_plain_one_with_those_weights(layer, x, is_masked, is_quantized):
    compressed, plain = copy.deepcopy(layer), copy.deepcopy(layer)
    masks = _masks(layer) if is_masked else {}
    for name, mask in masks.items():
        set_mask_(compressed, mask, name)
    if is_quantized:
        _quantize_(compressed)
    compress_layer_(compressed)
    with torch.no_grad():
        for name in weight_parameters(plain):
            weight, mask = plain.get_parameter(name), masks.get(name)
            quantizer = quantizer_of(compressed, name)
            values = weight if mask is None else weight * mask
            weight.copy_(values if quantizer is None else quantizer(weight, mask))
    assert torch.equal(_output(compressed, x), _output(plain, x))


@each_layer
def test_gradients_reach_every_weight_and_step_but_no_masked_weight(layer, x):
    compressed = copy.deepcopy(layer)
    masks = _masks(layer)
    for name, mask in masks.items():
        set_mask_(compressed, mask, name)
    _quantize_(compressed, bits=8)
    _output(compressed, x).square().sum().backward()
    for name, mask in masks.items():
        grad = compressed.get_parameter(name).grad
        assert (grad != 0).any()
        assert (grad[~mask] == 0).all()
        assert quantizer_of(compressed, name).step.grad is not None


@each_layer
def test_masks_and_steps_are_in_the_state_and_survive_copies(layer, x):
    trained, fresh = copy.deepcopy(layer), copy.deepcopy(layer)
    for seed, model in ((0, trained), (1, fresh)):
        for name, mask in _masks(layer, seed).items():
            set_mask_(model, mask, name)
        _quantize_(model)
    _output(trained, x).sum().backward()
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.mul_(1.1)
    expected = _output(trained, x)
    assert torch.equal(_output(copy.deepcopy(trained), x), expected)
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(_output(fresh, x), expected)


@each_layer
def test_restored_layer_is_the_plain_one(layer, x):
    compressed = copy.deepcopy(layer)
    for name, mask in _masks(layer).items():
        set_mask_(compressed, mask, name)
    _quantize_(compressed)
    weights = {name: compressed.get_parameter(name) for name in weight_parameters(compressed)}
    restore_layer_(compressed)
    assert type(compressed) is type(layer)
    assert not is_compressed(compressed)
    assert list(compressed.state_dict()) == list(layer.state_dict())
    assert all(compressed.get_parameter(name) is weight for name, weight in weights.items())
    assert torch.equal(_output(compressed, x), _output(layer, x))


def test_recurrent_layer_keeps_its_flat_weights_even_when_it_fails():
    layer = nn.LSTM(4, 3)
    compress_layer_(layer)
    _quantize_(layer)
    with pytest.raises(RuntimeError):
        layer(torch.randn(2, 5, 7))
    assert all(a is b for a, b in zip(layer._flat_weights, layer.parameters(), strict=False))


def test_recurrent_layer_sees_a_replaced_parameter():
    layer, x = nn.LSTM(4, 3), torch.randn(2, 5, 4)
    compress_layer_(layer)
    _quantize_(layer)
    layer.weight_ih_l0 = nn.Parameter(layer.weight_ih_l0.detach() * 2)
    plain = nn.LSTM(4, 3)
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            is_weight = name.startswith("weight")
            parameter.copy_(layer.compressed_weight(name) if is_weight else getattr(layer, name))
    assert torch.equal(layer(x)[0], plain(x)[0])


def test_weight_parameters_are_none_for_other_layers():
    class OwnLinear(nn.Linear):
        pass

    assert weight_parameters(nn.LayerNorm(4)) == weight_parameters(OwnLinear(2, 2)) == []
    assert weight_parameters(nn.LSTM(2, 2)) == ["weight_ih_l0", "weight_hh_l0"]


def test_compress_layer_names_what_it_cannot_take():
    with pytest.raises(InputError, match="this one is a LayerNorm"):
        compress_layer_(nn.LayerNorm(4))


@pytest.mark.parametrize("mask", [torch.ones(6, 5, dtype=torch.bool), torch.ones(6, 4)])
def test_set_mask_refuses_a_mask_that_does_not_fit(mask):
    with pytest.raises(ValueError, match=r"bool of shape \(6, 4\) for `weight`"):
        set_mask_(nn.Linear(4, 6), mask)


def test_set_mask_refuses_a_quantizer_that_cannot_hold_zeros():
    layer = nn.Linear(4, 6)
    make = find_quantizer("kmeans").make
    set_quantizer_(layer, make(layer.weight, 2, parse_granularity("tensor"), 0, None))
    with pytest.raises(InputError, match="KMeansQuantizer was made without a mask"):
        set_mask_(layer, torch.ones(6, 4, dtype=torch.bool))


def test_a_new_mask_replaces_the_old_one():
    layer = nn.Linear(4, 6)
    set_mask_(layer, torch.zeros(6, 4, dtype=torch.bool))
    set_mask_(layer, torch.ones(6, 4, dtype=torch.bool))
    assert mask_of(layer).all()
