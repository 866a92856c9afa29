import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.compress.quantizers.grid import (
    RoundToGrid,
    RoundToOneGrid,
    best_steps,
    code_limits,
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
    assert (best_steps(torch.zeros(2, 3), 4) > 0).all()


def test_round_to_grid_takes_limits_that_differ_by_row():
    x = torch.tensor([[-9.0, 9.0], [-9.0, 9.0]])
    low, high = torch.tensor([[-1.0], [-3.0]]), torch.tensor([[2.0], [0.0]])
    values = RoundToGrid.apply(x, torch.tensor([[0.5], [1.0]]), low, high, 1.0)
    assert values.tolist() == [[-0.5, 1.0], [-3.0, 0.0]]


@given(
    st.integers(0, 1000),
    st.sampled_from([(0, 255), (-128, 127), (-200, 55)]),
    st.sampled_from([torch.float32, torch.bfloat16]),
)
@settings(deadline=None, max_examples=40)
def test_one_grid_for_a_tensor_rounds_and_learns_as_one_grid_per_row(seed, limits, dtype):
    generator = torch.Generator().manual_seed(seed)
    x = (torch.randn(4, 3, 5, 5, generator=generator) * 3.0).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    step = torch.tensor(0.02)
    ratio = x.double() / step.double()
    edges = torch.tensor(limits).reshape(2, 1, 1, 1, 1)
    x = x.where(((ratio - edges).abs() > 2.0).all(dim=0), 0.0)  # bf16 may fall on either side
    weights = torch.randn(x.shape, generator=generator).to(dtype)
    found = []
    for rounding in (RoundToGrid, RoundToOneGrid):
        source, learned = x.clone().requires_grad_(), step.clone().requires_grad_()
        values = rounding.apply(source, learned, *limits, 0.1)
        (values * weights).sum().backward()
        found.append((values.detach(), source.grad, learned.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    ratio = x.double() / step.double()
    slope = ratio.round().clamp(*limits) - ratio.where(ratio.clamp(*limits) == ratio, 0.0)
    wanted = 0.1 * (slope * weights.double()).sum()
    slack = 4 * 255 * torch.finfo(dtype).eps * 0.1 * float(weights.double().norm())
    assert float(found[1][2]) == pytest.approx(float(wanted), abs=slack)
