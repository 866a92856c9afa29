import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.compress.quantizers.blocks import Granularity
from autocompress.compress.quantizers.fixed_point import (
    FixedPointQuantizer,
    best_power_of_two_steps,
)
from autocompress.compress.quantizers.grid import code_limits

BITS = (2, 3, 4, 5, 6, 7, 8)


def _error(row, step, bits):
    return ((row / step).round().clamp(*code_limits(bits)) * step - row).square().sum().item()


@given(st.sampled_from(BITS), st.integers(0, 500), st.floats(1e-4, 1e4))
@settings(deadline=None, max_examples=40)
def test_step_is_the_best_power_of_two(bits, seed, spread):
    row = torch.randn(1, 30, generator=torch.Generator().manual_seed(seed)) * spread
    step = best_power_of_two_steps(row, bits)
    mantissa, _ = torch.frexp(step)
    assert mantissa.tolist() == [0.5]
    best = min(_error(row, 2.0**e, bits) for e in range(-26, 20))
    assert _error(row, step.item(), bits) <= best * (1 + 1e-6)


@pytest.mark.parametrize("bits", BITS)
def test_weights_on_a_power_of_two_grid_are_kept(bits):
    _, high = code_limits(bits)
    weight = torch.tensor([[-high, 0.0, 1.0, high]]) * 0.25
    assert best_power_of_two_steps(weight, bits).tolist() == [0.25]


def test_step_stays_a_power_of_two_when_everything_is_trained():
    quantizer = FixedPointQuantizer(torch.randn(4, 9), 4, Granularity(), 0)
    quantizer.requires_grad_(True)
    assert list(quantizer.parameters()) == []
    assert "step" in quantizer.state_dict()


def test_step_of_a_channel_of_zeros_is_a_power_of_two():
    quantizer = FixedPointQuantizer(torch.zeros(2, 9), 4, Granularity(), 0)
    scale = torch.from_numpy(quantizer.freeze(torch.zeros(2, 9)).scale)
    assert torch.frexp(scale)[0].tolist() == [0.5, 0.5]
