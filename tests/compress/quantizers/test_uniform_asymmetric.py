import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.compress.quantizers.registry import parse_granularity
from autocompress.compress.quantizers.uniform import UniformQuantizer
from autocompress.compress.quantizers.uniform_asymmetric import (
    AsymmetricQuantizer,
    best_asymmetric_grids,
)

BITS = (2, 3, 4, 5, 6, 7, 8)


def _values(rows, step, zero, bits):
    codes = (rows / step[:, None]).round() + zero[:, None]
    return (codes.clamp(0, 2**bits - 1) - zero[:, None]) * step[:, None]


def _error(rows, step, zero, bits):
    return (_values(rows, step, zero, bits) - rows).square().sum(1)


@given(st.sampled_from(BITS), st.integers(0, 500), st.floats(-3.0, 3.0))
@settings(deadline=None, max_examples=40)
def test_grid_is_never_worse_than_the_full_range(bits, seed, shift):
    rows = torch.randn(4, 20, generator=torch.Generator().manual_seed(seed)) + shift
    step, zero = best_asymmetric_grids(rows, bits)
    low, high = rows.amin(1).clamp_max(0), rows.amax(1).clamp_min(0)
    full = (high - low) / (2**bits - 1)
    full_error = _error(rows, full, (-low / full).round(), bits)
    assert (_error(rows, step, zero, bits) <= full_error * (1 + 1e-5)).all()
    assert torch.equal(zero, zero.round())
    assert (zero >= 0).all()
    assert (zero <= 2**bits - 1).all()


@pytest.mark.parametrize("granularity", ["channel", "tensor", "group:8"])
@pytest.mark.parametrize("bits", BITS)
def test_values_follow_the_integer_formula(granularity, bits):
    weight = torch.randn(3, 20) + 0.5
    quantizer = AsymmetricQuantizer(weight, bits, parse_granularity(granularity), 0)
    rows = quantizer.blocks.rows(weight)
    step, zero = quantizer.step.detach(), quantizer.zero_point
    expected = _values(rows, step, zero, bits)
    values = quantizer.blocks.rows(quantizer(weight).detach())
    members = quantizer.blocks.members(None)
    torch.testing.assert_close(values[members], expected[members], rtol=0, atol=1e-6)


def test_skewed_weights_are_closer_than_on_a_symmetric_grid():
    weight = torch.rand(4, 50)
    granularity = parse_granularity("channel")
    errors = [
        (make(weight, 3, granularity, 0)(weight) - weight).norm().item()
        for make in (AsymmetricQuantizer, UniformQuantizer)
    ]
    assert errors[0] < 0.7 * errors[1]


def test_zero_is_on_every_grid():
    weight = torch.rand(4, 50) + 1.0
    quantizer = AsymmetricQuantizer(weight, 3, parse_granularity("channel"), 0)
    assert quantizer(torch.zeros(4, 50)).tolist() == [[0.0] * 50] * 4
