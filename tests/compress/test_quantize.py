import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from autocompress.compress.quantize import (
    QUANTIZED,
    InputQuantizer,
    WeightQuantizer,
    best_steps,
    code_limits,
    freeze_,
    quantize_,
)

BITS = (2, 3, 4, 5, 6, 7, 8)


def _error(weight, steps, bits):
    low, high = code_limits(bits)
    codes = (weight / steps[:, None]).round().clamp(low, high)
    return (codes * steps[:, None] - weight).square().sum(1)


@pytest.mark.parametrize("bits", BITS)
def test_code_limits_fit_the_bits(bits):
    low, high = code_limits(bits)
    assert -(2 ** (bits - 1)) <= low < 0 < high == 2 ** (bits - 1) - 1
    assert high - low + 1 >= 2**bits - 1


@given(st.sampled_from(BITS), st.integers(0, 1000), st.floats(1e-3, 1e3))
@settings(deadline=None, max_examples=40)
def test_best_steps_are_never_worse_than_scaling_by_the_largest_weight(bits, seed, spread):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(5, 20, generator=generator) * spread
    widest = weight.abs().amax(1) / code_limits(bits)[1]
    steps = best_steps(weight, bits)
    assert (steps > 0).all()
    assert (_error(weight, steps, bits) <= _error(weight, widest, bits) * (1 + 1e-6)).all()


@pytest.mark.parametrize("bits", BITS)
def test_best_steps_find_a_grid_exactly(bits):
    low, high = code_limits(bits)
    scale = torch.tensor([0.5, 0.01, 3.0])
    codes = torch.randint(low, high + 1, (3, 64))
    codes[:, 0] = high
    codes[:, 1] = -high
    weight = codes.clamp(-high, high) * scale[:, None]
    torch.testing.assert_close(best_steps(weight, bits), scale)


def test_best_steps_survive_a_channel_of_zeros():
    steps = best_steps(torch.zeros(2, 3), 4)
    assert (steps > 0).all()
    assert WeightQuantizer(torch.zeros(2, 3), 4)(torch.zeros(2, 3)).tolist() == [[0.0] * 3] * 2


@pytest.mark.parametrize("bits", BITS)
def test_weight_quantizer_gives_codes_times_scale(bits):
    weight = torch.randn(4, 3, 3, 3)
    quantizer = WeightQuantizer(weight, bits)
    frozen = quantizer.freeze(weight)
    low, high = code_limits(bits)
    assert frozen.codes.dtype == np.int8
    assert frozen.codes.min() >= low
    assert frozen.codes.max() <= high
    assert (frozen.scale > 0).all()
    assert np.array_equal(frozen.dequantize(), quantizer(weight).detach().numpy())


def test_weight_quantizer_ignores_the_sign_of_its_step():
    weight = torch.randn(4, 6)
    quantizer = WeightQuantizer(weight, 4)
    expected = quantizer(weight).detach()
    with torch.no_grad():
        quantizer.step.neg_()
    assert torch.equal(quantizer(weight), expected)
    assert (quantizer.freeze(weight).scale > 0).all()


def _closed_form_lsq(weight, step, bits, grad):
    """Gradients as in Esser et al. 2020, equations 2 and 3, one value at a time."""
    low, high = code_limits(bits)
    grad_weight, grad_step = torch.zeros_like(weight), torch.zeros_like(step)
    for c, i in np.ndindex(*weight.shape):
        ratio = float(weight[c, i] / step[c])
        if ratio < low:
            slope = low
        elif ratio > high:
            slope = high
        else:
            slope = round(ratio) - ratio
            grad_weight[c, i] = grad[c, i]
        grad_step[c] += slope * grad[c, i]
    return grad_weight, grad_step / (weight.shape[1] * high) ** 0.5


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_weight_gradients_are_those_of_lsq(bits):
    weight = (torch.randn(3, 10) * 2).requires_grad_()
    quantizer = WeightQuantizer(weight, bits)
    with torch.no_grad():
        quantizer.step.mul_(0.6)  # so that some weights fall off the grid
    grad = torch.randn(3, 10)
    quantizer(weight).backward(grad)
    expected = _closed_form_lsq(weight.detach(), quantizer.step.detach(), bits, grad)
    torch.testing.assert_close(weight.grad, expected[0])
    torch.testing.assert_close(quantizer.step.grad, expected[1])


def test_step_gradient_is_that_of_a_smooth_surrogate():
    """Each rounding is replaced by its offset, held fixed: then finite differences apply."""
    weight, bits = torch.randn(1, 12, dtype=torch.float64), 3
    target = torch.randn(1, 12, dtype=torch.float64)
    quantizer = WeightQuantizer(weight, bits).double()
    step = quantizer.step.detach().clone()
    low, high = code_limits(bits)
    ratio = weight / step
    is_inside = (ratio >= low) & (ratio <= high)
    offset = ratio.round() - ratio

    def surrogate(s):
        values = torch.where(is_inside, weight + offset * s, ratio.clamp(low, high) * s)
        return (values - target).square().sum()

    (quantizer(weight) - target).square().sum().backward()
    nudge = 1e-6
    slope = (surrogate(step + nudge) - surrogate(step - nudge)) / (2 * nudge)
    scale = (weight.shape[1] * high) ** -0.5
    torch.testing.assert_close(quantizer.step.grad[0], slope * scale, rtol=1e-5, atol=1e-7)


def test_input_quantizer_passes_through_and_watches_while_observing():
    grid = InputQuantizer()
    x = torch.tensor([[-1.0, 3.0]])
    assert grid(x) is x
    grid(torch.tensor([[0.5, 1.0]]))
    assert (float(grid.low), float(grid.high)) == (-1.0, 3.0)


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 4.0), (-1.0, 3.0), (-2.0, 0.0), (0.5, 2.0), (-3.0, -1.0), (0.0, 0.0)]
)
def test_input_grid_covers_what_was_observed_and_holds_zero(low, high):
    grid = InputQuantizer()
    grid(torch.tensor([[low, high]]))
    grid.settle()
    frozen = grid.freeze()
    assert 0 <= frozen.zero_point <= 255
    least, most = (-frozen.zero_point * frozen.scale, (255 - frozen.zero_point) * frozen.scale)
    assert least <= min(low, 0.0) + frozen.scale
    assert most >= max(high, 0.0) - frozen.scale
    x = torch.linspace(low, high, 50)[None]
    values = grid(x)
    assert ((values - x).abs() <= frozen.scale * 1.01).all()
    assert grid(torch.zeros(1, 1)).item() == 0.0
    codes = (values / frozen.scale).round() + frozen.zero_point
    assert codes.min() >= 0
    assert codes.max() <= 255


def test_input_grid_clips_what_it_never_saw():
    grid = InputQuantizer()
    grid(torch.tensor([[0.0, 2.55]]))
    grid.settle()
    assert grid(torch.tensor([[100.0, -100.0]])).tolist()[0] == pytest.approx([2.55, 0.0])


def test_input_grid_must_be_settled_before_it_is_frozen():
    grid = InputQuantizer()
    with pytest.raises(AssertionError, match="settle the grid"):
        grid.freeze()


def test_input_gradients_stop_off_the_grid_and_reach_the_step():
    grid = InputQuantizer()
    grid(torch.tensor([[0.0, 1.0]]))
    grid.settle()
    x = torch.tensor([[0.5, 2.0, -1.0]], requires_grad=True)
    grid(x).sum().backward()
    assert x.grad.tolist() == [[1.0, 0.0, 0.0]]
    assert grid.step.grad is not None


@pytest.mark.parametrize("weight_bits", BITS)
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(6, 4), (2, 6)),
        (nn.Conv1d(6, 4, 3), (2, 6, 5)),
        (nn.Conv2d(6, 4, 3, padding=1, padding_mode="reflect"), (2, 6, 5, 5)),
        (nn.Conv2d(6, 6, 3, groups=6, bias=False), (2, 6, 5, 5)),
        (nn.Conv3d(2, 4, 2), (2, 2, 4, 4, 4)),
    ],
    ids=["linear", "conv1d", "conv2d", "depthwise", "conv3d"],
)
def test_frozen_layer_computes_what_the_quantized_one_did(layer, shape, weight_bits):
    model = nn.Sequential(copy.deepcopy(layer))
    x = torch.randn(shape)
    quantize_(model, "0", weight_bits, 32)
    quantized = model(x).detach()
    weights, activations = freeze_(model)
    assert type(model[0]) is type(layer)
    assert activations == {}
    assert weights["0"].bits == weight_bits
    assert np.array_equal(model[0].weight.detach().numpy(), weights["0"].dequantize())
    assert set(model.state_dict()) == set(nn.Sequential(layer).state_dict())
    assert torch.equal(model(x), quantized)


def test_quantize_keeps_parameters_the_same_objects():
    model = nn.Sequential(nn.Linear(6, 4))
    weight, bias = model[0].weight, model[0].bias
    quantize_(model, "0", 4, 8)
    assert model[0].weight is weight
    assert model[0].bias is bias


def test_quantize_takes_all_factors_of_a_layer():
    model = nn.Sequential(nn.Sequential(nn.Linear(6, 2), nn.Linear(2, 4)))
    quantize_(model, "0", 4, 8)
    assert [type(m) for m in model[0]] == [QUANTIZED[nn.Linear]] * 2
    model(torch.randn(3, 6))
    for module in model.modules():
        if isinstance(module, InputQuantizer):
            module.settle()
    weights, activations = freeze_(model)
    assert set(weights) == set(activations) == {"0.0", "0.1"}


def test_finer_grids_are_closer():
    weight = torch.randn(8, 100)
    errors = [(WeightQuantizer(weight, b)(weight) - weight).norm().item() for b in BITS]
    assert errors == sorted(errors, reverse=True)


def test_quantized_layer_learns():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4))
    quantize_(model, "0", 2, 32)
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
