"""Where weights lie between the values they can take: for every quantizer of the table."""

import pytest
import torch

from autocompress.compress.quantizers.registry import QUANTIZERS, find_quantizer, parse_granularity
from autocompress.compress.quantizers.uniform import UniformQuantizer
from autocompress.technique import BINARY_BITS, TERNARY_BITS
from tests.needs import need_extra

CASES = [
    (name, kind, bits)
    for name, spec in QUANTIZERS.items()
    for kind in spec.granularities
    for bits in (4, 3, 2, TERNARY_BITS, BINARY_BITS)
    if bits in spec.bits
]


def quantizer_of(name, kind, bits, weight, axis=0):
    if name == "nni_qat":
        need_extra("nni")
    granularity = parse_granularity("group:8" if kind == "group" else kind)
    return find_quantizer(name).make(weight, bits, granularity, axis, None)


@pytest.mark.parametrize(("name", "kind", "bits"), CASES)
@pytest.mark.parametrize(("shape", "axis"), [((4, 20), 0), ((5, 4, 4), 1)])
def test_rounded_position_is_the_value_a_weight_takes(name, kind, bits, shape, axis):
    torch.manual_seed(0)
    weight = torch.randn(shape)
    quantizer = quantizer_of(name, kind, bits, weight, axis)
    found, levels = quantizer.positions(weight), quantizer.levels()
    if levels is None:
        assert found is None
        return
    positions, n_values = found
    rows = quantizer.blocks.rows(quantizer(weight).detach())
    assert positions.shape == rows.shape
    assert n_values == levels.shape[1] >= 2
    is_weight = quantizer.blocks.members(None)
    assert torch.equal(positions.isnan(), ~is_weight)
    positions = positions.detach().nan_to_num(0.0)
    assert positions.min() >= 0.0
    assert positions.max() <= n_values - 1
    taken = levels.detach().gather(1, positions.round().long())
    is_tie = (positions % 1.0 - 0.5).abs() < 1e-4
    differs = ((taken - rows).abs() > 1e-5) & is_weight & ~is_tie
    assert not differs.any()


@pytest.mark.parametrize(("name", "kind", "bits"), CASES)
def test_position_rises_with_the_weight(name, kind, bits):
    torch.manual_seed(0)
    weight = torch.randn(4, 20, requires_grad=True)
    quantizer = quantizer_of(name, kind, bits, weight.detach())
    found = quantizer.positions(weight)
    if found is None:
        return
    found[0].nansum().backward()
    assert weight.grad.min() >= 0.0
    assert (weight.grad > 0.0).float().mean() > 0.5


def test_a_short_block_is_padded_with_nan():
    weight = torch.randn(3, 11)
    quantizer = quantizer_of("uniform", "group", 4, weight)
    positions, _ = quantizer.positions(weight)
    assert positions.shape == (6, 8)
    assert positions.isnan().sum() == 3 * 5
    assert not positions[::2].isnan().any()


def test_the_step_of_a_uniform_grid_learns_from_positions_as_from_rounding():
    weight = torch.randn(2, 12)
    quantizer = quantizer_of("uniform", "channel", 3, weight)
    assert isinstance(quantizer, UniformQuantizer)
    positions, _ = quantizer.positions(weight)
    (slope,) = torch.autograd.grad(positions.sum(), quantizer.step)
    step = quantizer.step.detach().clone().requires_grad_()
    codes = (weight / step[:, None]).clamp(-4, 3)  # what a step has a say in is not clipped
    (plain,) = torch.autograd.grad(codes.sum(), step)
    torch.testing.assert_close(slope, plain * (12 * 3) ** -0.5)
