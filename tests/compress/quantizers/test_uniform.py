import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.compress.codes import GridTensor, QuantizedTensor
from autocompress.compress.quantizers.grid import best_steps, code_limits
from autocompress.compress.quantizers.registry import parse_granularity
from autocompress.compress.quantizers.uniform import UniformQuantizer

BITS = (2, 3, 4, 5, 6, 7, 8)


def _quantizer(weight, bits, granularity="channel", axis=0, mask=None):
    return UniformQuantizer(weight, bits, parse_granularity(granularity), axis, mask)


@pytest.mark.parametrize("bits", BITS)
def test_channel_values_follow_the_integer_formula(bits):
    weight = torch.randn(4, 3, 3, 3)
    quantizer, steps = _quantizer(weight, bits), best_steps(weight, bits)
    assert torch.equal(quantizer.step.detach(), steps)
    low, high = code_limits(bits)
    steps = steps.reshape(-1, 1, 1, 1)
    expected = (weight / steps).round().clamp(low, high) * steps
    assert torch.equal(quantizer(weight).detach(), expected)
    frozen = quantizer.freeze(weight)
    assert isinstance(frozen, QuantizedTensor)
    assert np.array_equal(frozen.dequantize(), expected.numpy())


def test_channels_may_run_along_another_axis():
    weight = torch.randn(4, 6, 3)
    along = _quantizer(weight, 4, axis=1)
    moved = _quantizer(weight.movedim(1, 0), 4)
    assert torch.equal(along(weight).movedim(1, 0), moved(weight.movedim(1, 0)))
    assert along.freeze(weight).axis == 1


def test_tensor_granularity_has_one_step_which_is_stored_for_every_channel():
    weight = torch.randn(4, 6)
    quantizer = _quantizer(weight, 4, "tensor")
    assert torch.equal(quantizer.step.detach(), best_steps(weight.reshape(1, -1), 4))
    assert quantizer.freeze(weight).scale.tolist() == quantizer.step.tolist() * 4


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("bits", [2, 8])
def test_group_granularity_is_channels_cut_into_groups(axis, bits):
    """Oracle: every slice of 8 weights quantized as a row of its own; the last one is shorter."""
    weight = torch.randn(5, 20) if axis == 0 else torch.randn(20, 5)
    rows = weight.movedim(axis, 0)
    quantizer = _quantizer(weight, bits, "group:8", axis)
    values = quantizer(weight).detach().movedim(axis, 0)
    for channel in range(5):
        for i, start in enumerate((0, 8, 16)):
            row = rows[channel, start : start + 8][None]
            expected = _quantizer(row, bits)(row)[0].detach()
            assert torch.equal(values[channel, start : start + 8], expected), (channel, i)
    frozen = quantizer.freeze(weight)
    assert isinstance(frozen, GridTensor)
    assert frozen.scale.shape == (5, 3)
    assert (frozen.zero_point == 2 ** (bits - 1)).all()


def test_finer_granularity_is_closer():
    weight = torch.randn(8, 64) * torch.rand(8, 64).exp()
    errors = [
        (_quantizer(weight, 3, g)(weight) - weight).norm().item()
        for g in ("tensor", "channel", "group:8")
    ]
    assert errors == sorted(errors, reverse=True)


def test_more_bits_are_closer():
    weight = torch.randn(8, 100)
    errors = [(_quantizer(weight, b)(weight) - weight).norm().item() for b in (1, 1.58, *BITS)]
    assert errors == sorted(errors, reverse=True)


def test_the_sign_of_a_step_does_not_count():
    weight = torch.randn(4, 6)
    quantizer = _quantizer(weight, 4)
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


@pytest.mark.parametrize("bits", [1.58, 2, 4, 8])
def test_gradients_are_those_of_lsq(bits):
    weight = (torch.randn(3, 10) * 2).requires_grad_()
    quantizer = _quantizer(weight, bits)
    with torch.no_grad():
        quantizer.step.mul_(0.6)  # so that some weights fall off the grid
    grad = torch.randn(3, 10)
    quantizer(weight).backward(grad)
    expected = _closed_form_lsq(weight.detach(), quantizer.step.detach(), bits, grad)
    torch.testing.assert_close(weight.grad, expected[0])
    torch.testing.assert_close(quantizer.step.grad, expected[1])


@pytest.mark.parametrize("granularity", ["channel", "tensor", "group:8"])
def test_step_gradient_is_that_of_a_smooth_surrogate(granularity):
    """Each rounding is replaced by its offset, held fixed: then finite differences apply."""
    weight, bits = torch.randn(1, 8, dtype=torch.float64), 3
    target = torch.randn(1, 8, dtype=torch.float64)
    quantizer = _quantizer(weight, bits, granularity).double()
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


@given(st.sampled_from((1, 1.58, *BITS)), st.integers(0, 100))
@settings(deadline=None, max_examples=20)
def test_masked_weights_do_not_move_the_step(bits, seed):
    """A mask is as good as leaving the weights out."""
    weight = torch.randn(2, 12, generator=torch.Generator().manual_seed(seed))
    mask = torch.ones(2, 12, dtype=torch.bool)
    mask[:, 7:] = False
    masked, alone = _quantizer(weight, bits, mask=mask), _quantizer(weight[:, :7], bits)
    torch.testing.assert_close(masked.step, alone.step)
