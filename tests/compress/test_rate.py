import math

import pytest
import torch

from autocompress.compress.compensated_rounding import compensate_rounding, curvature_of
from autocompress.compress.rate import (
    code_lengths,
    nearest_codes,
    round_for_rate,
    step_for_price,
)


def _matrix(n_inputs=40, n_out=16):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, n_inputs, generator=generator)
    x = x @ torch.randn(n_inputs, n_inputs, generator=generator)
    weight = torch.randn(1, n_out, n_inputs, generator=generator)
    return weight, (x.T @ x / len(x))[None]


def _error(change, moment):
    return float(torch.einsum("gon,gnm,gom->", change, moment.double(), change))


def _entropy(codes):
    shares = torch.bincount(codes.flatten()).double() / codes.numel()
    return float(-(shares * shares.clamp_min(1e-300).log2()).sum())


def test_code_lengths_are_those_of_the_shares():
    codes = torch.tensor([[2, 2, 0], [2, 2, 0]])
    expected = [-math.log2(share / 8) for share in (2.5, 0.5, 4.5, 0.5)]
    torch.testing.assert_close(code_lengths(codes, 4), torch.tensor(expected).double())


def test_code_lengths_make_up_a_code():
    """The inequality of Kraft, with equality: no bit is wasted, and none too few."""
    codes = torch.randint(0, 9, (200,))
    assert float(code_lengths(codes, 16).neg().exp2().sum()) == pytest.approx(1.0)


def test_code_lengths_of_a_long_message_are_its_entropy():
    codes = torch.randint(0, 5, (5000,)) * torch.randint(0, 2, (5000,))
    mean = float(code_lengths(codes, 5)[codes].mean())
    assert mean == pytest.approx(_entropy(codes), rel=1e-4)


@pytest.mark.parametrize("n_columns", [1, 6])
def test_nearest_codes_are_those_of_brute_force(n_columns):
    values, levels = torch.randn(2, 3, 6), torch.randn(2, 3, n_columns, 5).sort(dim=-1).values
    expected = (values[..., None] - levels).abs().argmin(-1)
    assert torch.equal(nearest_codes(values, levels), expected)


def test_step_is_where_the_error_of_a_fine_grid_falls_by_the_price_with_a_bit():
    curvature = torch.tensor([0.5, 3.0]).double()
    step, tiny = step_for_price(0.02, curvature), 1e-6
    fall = curvature / 12 * (step.square() - (step * 2**-tiny).square()) / tiny
    torch.testing.assert_close(fall, torch.full((2,), 0.02).double(), rtol=1e-4, atol=0)


def test_no_price_is_compensation_alone():
    weight, moment = _matrix()
    levels = torch.linspace(-2, 2, 17).expand(1, 16, 1, 17)
    kept = torch.rand(weight.shape) > 0.3
    rounded, _ = round_for_rate(weight, moment, levels, 0.0, kept=kept)
    assert torch.equal(rounded, compensate_rounding(weight, moment, levels, kept=kept))


def test_higher_price_means_fewer_bits_and_more_error():
    weight, moment = _matrix()
    levels = torch.linspace(-3, 3, 25).expand(1, 16, 1, 25)
    power = _error(weight.double(), moment)
    bits, errors = [], []
    for share in (0.0, 1e-5, 1e-4, 1e-3, 1e-2):
        rounded, lengths = round_for_rate(weight, moment, levels, share * power)
        codes = nearest_codes(rounded, levels)
        torch.testing.assert_close(lengths, code_lengths(codes, 25))
        bits.append(_entropy(codes))
        errors.append(_error(rounded - weight, moment))
    assert bits == sorted(bits, reverse=True)
    assert errors == sorted(errors)
    assert bits[-1] < bits[0] / 2


def test_weighing_bits_beats_a_coarser_grid_at_equal_bits():
    """That is what it is for: on one grid, fewer bits at less error than rounding without it."""
    weight, moment = _matrix()

    def at(step, price):
        levels = (torch.arange(-40, 41) * step).expand(1, 16, 1, 81)
        rounded, _ = round_for_rate(weight, moment, levels, price)
        return _entropy(nearest_codes(rounded, levels)), _error(rounded - weight, moment)

    price = math.log(2) / 6 * 2.0**2 * float(curvature_of(moment))  # see `step_for_price`
    bits, error = at(2.0, price)
    coarser = [at(step, 0.0) for step in torch.linspace(2.0, 4.0, 15)]
    assert min(e for b, e in coarser if b <= bits) > 1.2 * error


def test_masked_weights_stay_zero_at_any_price():
    weight, moment = _matrix()
    levels = torch.linspace(-2, 2, 17).expand(1, 16, 1, 17)
    kept = torch.rand(weight.shape) > 0.5
    for price in (0.0, 1.0, 1e3):
        rounded, _ = round_for_rate(weight, moment, levels, price, kept=kept)
        assert (rounded[~kept] == 0).all()
