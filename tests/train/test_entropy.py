import copy

import pytest
import torch
from torch import nn

from autocompress.compress.compressed_layers import set_mask_
from autocompress.compress.quantize import freeze_, quantize_
from autocompress.compress.quantizers.uniform import UniformQuantizer
from autocompress.plan import LayerPlan
from autocompress.train.entropy import code_bits, mean_code_bits


def ideal_bits(codes: torch.Tensor, n_values: int) -> float:
    """Sum over weights of -log2 of their code's share, half a count added to every code."""
    counts = [int((codes == code).sum()) + 0.5 for code in range(n_values)]
    shares = torch.tensor(counts, dtype=torch.float64) / sum(counts)
    return float(sum(-shares[int(code)].log2() for code in codes.flatten()))


def quantized(*layers: nn.Module, bits: float = 3) -> nn.Sequential:
    model = nn.Sequential(*layers)
    for name in map(str, range(len(layers))):
        quantize_(model, name, LayerPlan(weight_bits=bits))
    return model


@pytest.mark.parametrize("n_values", [2, 3, 16])
def test_code_bits_of_whole_codes_is_their_entropy(n_values: int) -> None:
    codes = (torch.rand(7, 50).square() * n_values).floor()
    bits = code_bits(codes.double(), n_values)
    assert float(bits) == pytest.approx(ideal_bits(codes, n_values), rel=1e-12)


def test_code_bits_of_a_weight_between_codes_is_shared_out() -> None:
    # counts 1 + 0.25 and 0.75, half a count each beside them
    shares = torch.tensor([1.75, 1.25]) / 3.0
    expected = -(shares[0].log2() * 1.25 + shares[1].log2() * 0.75)
    assert float(code_bits(torch.tensor([0.0, 0.75]), 2)) == pytest.approx(float(expected))


def test_code_bits_ignores_padding() -> None:
    positions = torch.tensor([[0.2, 1.0, 2.9], [3.0, torch.nan, torch.nan]])
    assert code_bits(positions, 4) == code_bits(torch.tensor([0.2, 1.0, 2.9, 3.0]), 4)


def test_code_bits_pulls_a_weight_to_the_more_frequent_of_its_codes() -> None:
    for often, sign in ((1, 1.0), (2, -1.0)):  # descent goes against the sign
        crowd = torch.full((90,), float(often))
        positions = torch.cat([crowd, torch.tensor([1.5, 3.0, 0.0])]).requires_grad_()
        code_bits(positions, 4).backward()
        assert positions.grad is not None
        assert positions.grad[90] * sign > 1.0


def test_code_bits_gradient_is_that_of_the_price_at_fixed_frequencies() -> None:
    torch.manual_seed(0)
    positions = (torch.rand(40, dtype=torch.float64) * 3.0).requires_grad_()
    code_bits(positions, 4).backward()
    lower = positions.detach().floor().long()
    share = positions.detach() - lower
    counts = torch.full((4,), 0.5, dtype=torch.float64)
    for code, part in zip(lower.tolist(), share.tolist(), strict=True):
        counts[code] += 1.0 - part
        counts[code + 1] += part
    bits = (counts.sum() / counts).log2()

    def price(at: torch.Tensor) -> torch.Tensor:
        part = at - lower
        return (1.0 - part) * bits[lower] + part * bits[lower + 1]

    step = 1e-4
    here = positions.detach()
    differences = (price(here + step) - price(here - step)) / (2.0 * step)
    torch.testing.assert_close(positions.grad, differences, rtol=1e-6, atol=1e-8)


def test_mean_code_bits_of_weights_on_their_grid_is_the_entropy_of_what_is_stored() -> None:
    model = quantized(nn.Linear(30, 20), nn.Linear(20, 10), bits=4)
    for layer in model:
        with torch.no_grad():
            layer.weight.copy_(layer.weight_quantizer(layer.weight))
    bits = mean_code_bits(model)
    assert bits is not None
    weights, _ = freeze_(copy.deepcopy(model))
    stored = [torch.from_numpy(weights[name].codes.astype("int64")) for name in ("0", "1")]
    expected = sum(ideal_bits(codes + 8, 16) for codes in stored) / 800
    assert bits.item() == pytest.approx(expected, rel=1e-4)


def test_mean_code_bits_counts_masked_weights_as_zeros() -> None:
    model = quantized(nn.Linear(30, 20))
    dense = mean_code_bits(model)
    masked = nn.Sequential(nn.Linear(30, 20))
    with torch.no_grad():
        masked[0].weight.copy_(model[0].weight)
    keep = torch.zeros(20, 30, dtype=torch.bool)
    keep[:, :3] = True
    set_mask_(masked[0], keep)
    quantize_(masked, "0", LayerPlan(weight_bits=3))
    sparse = mean_code_bits(masked)
    assert dense is not None
    assert sparse is not None
    assert sparse < 0.5 * dense
    sparse.backward()
    assert masked[0].weight.grad[~keep].abs().max() == 0.0
    assert masked[0].weight.grad[keep].abs().max() > 0.0


def test_mean_code_bits_counts_a_weight_of_two_layers_once() -> None:
    first, second, third = nn.Linear(9, 9), nn.Linear(9, 9), nn.Linear(9, 3)
    second.weight = first.weight
    alone = mean_code_bits(quantized(copy.deepcopy(first), copy.deepcopy(third)))
    shared = mean_code_bits(quantized(first, second, third))
    assert alone is not None
    assert shared is not None
    assert shared.item() == alone.item()


@pytest.mark.parametrize("quantizer", [None, "hashed"])
def test_mean_code_bits_is_none_where_no_code_can_be_chosen(quantizer: str | None) -> None:
    model = nn.Sequential(nn.Linear(9, 9))
    if quantizer is not None:
        plan = LayerPlan(weight_bits=4, quantizer=quantizer, granularity="tensor")
        assert quantize_(model, "0", plan) == ()
    assert mean_code_bits(model) is None


def test_mean_code_bits_reaches_weights_and_steps() -> None:
    model = quantized(nn.Linear(30, 20))
    bits = mean_code_bits(model)
    assert bits is not None
    bits.backward()
    quantizer = model[0].weight_quantizer
    assert isinstance(quantizer, UniformQuantizer)
    assert model[0].weight.grad.abs().max() > 0.0
    assert quantizer.step.grad.abs().max() > 0.0
