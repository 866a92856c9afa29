import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from autocompress.compress import error_compensation, input_moments
from autocompress.compress.compressed_layers import quantizer_of, set_mask_
from autocompress.compress.error_compensation import (
    Compensation,
    compensate_,
    compensate_rounding,
)
from autocompress.compress.quantize import freeze_, quantize_
from autocompress.plan import LayerPlan

CHOICES = [
    ("uniform", "channel", 3),
    ("uniform", "tensor", 4),
    ("uniform", "group:8", 3),
    ("uniform", "channel", 1.58),
    ("uniform", "channel", 1),
    ("uniform_asymmetric", "channel", 3),
    ("fixed_point", "channel", 4),
    ("kmeans", "channel", 3),
    ("kmeans", "tensor", 2),
    ("additive_power_of_two", "channel", 4),
]


def _inputs(n_inputs, seed=0, n_examples=200):
    """Correlated inputs: nothing can be made up for where they are not."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(n_inputs, n_inputs, generator=generator)
    return torch.randn(n_examples, n_inputs, generator=generator) @ mixed


def _gptq_by_hand(weight, moment, levels, damping):
    """Algorithm 1 of the paper without blocks: the inverse Hessian is reduced column by column."""
    W, n = weight.double().clone(), weight.shape[1]
    H = moment.double() + damping * moment.diagonal().mean().double() * torch.eye(n).double()
    Q = torch.zeros_like(W)
    for j in range(n):
        inverse = torch.linalg.inv(H[j:, j:])
        for row in range(len(W)):
            Q[row, j] = levels[row][(levels[row] - W[row, j]).abs().argmin()]
        error = (W[:, j] - Q[:, j]) / inverse[0, 0]
        W[:, j:] -= error[:, None] * inverse[0]
    return Q


@given(st.integers(2, 9), st.integers(0, 100))
@settings(deadline=None, max_examples=15)
def test_rounding_follows_the_paper(n_inputs, seed):
    x = _inputs(n_inputs, seed)
    moment = x.T @ x / len(x)
    weight = torch.randn(4, n_inputs, generator=torch.Generator().manual_seed(seed))
    levels = torch.linspace(-2, 2, 9).repeat(4, 1) * torch.tensor([[1.0], [0.5], [0.7], [1.3]])
    expected = _gptq_by_hand(weight, moment, levels.double(), 0.01)
    got = compensate_rounding(
        weight[None], moment[None], levels[None, :, None], orders_columns=False
    )
    torch.testing.assert_close(got[0], expected)


def test_blocks_of_columns_change_nothing(monkeypatch):
    x = _inputs(30)
    moment, weight = (x.T @ x / len(x))[None], torch.randn(1, 4, 30)
    levels = torch.linspace(-2, 2, 9).expand(1, 4, 1, 9)
    whole = compensate_rounding(weight, moment, levels)
    monkeypatch.setattr("autocompress.compress.error_compensation._BLOCK", 7)
    torch.testing.assert_close(compensate_rounding(weight, moment, levels), whole)


def test_order_of_columns_is_that_of_their_power():
    """With the columns sorted by hand, ordering changes nothing; groups are ordered one by one."""
    x = torch.stack([_inputs(6, seed) for seed in (0, 1)])
    moment = x.mT @ x / x.shape[1]
    weight = torch.randn(2, 3, 6)
    levels = torch.linspace(-2, 2, 9).expand(2, 3, 1, 9)
    got = compensate_rounding(weight, moment, levels)
    for g in range(2):
        order = moment[g].diagonal().argsort(descending=True)
        sorted_moment = moment[g][order][:, order]
        expected = compensate_rounding(
            weight[g][:, order][None], sorted_moment[None], levels[:1], orders_columns=False
        )
        torch.testing.assert_close(got[g][:, order], expected[0])


def test_rounding_is_to_nearest_when_inputs_are_uncorrelated():
    weight, levels = torch.randn(1, 4, 10), torch.linspace(-2, 2, 9)
    got = compensate_rounding(weight, torch.eye(10)[None], levels.expand(1, 4, 1, 9))
    nearest = levels[(weight[..., None] - levels).abs().argmin(-1)]
    torch.testing.assert_close(got, nearest.double())


def test_rounding_survives_inputs_that_are_always_zero():
    moment = torch.zeros(1, 5, 5)
    weight, levels = torch.randn(1, 2, 5), torch.linspace(-2, 2, 9)
    got = compensate_rounding(weight, moment, levels.expand(1, 2, 1, 9))
    nearest = levels[(weight[..., None] - levels).abs().argmin(-1)]
    torch.testing.assert_close(got, nearest.double())


class _Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 12, 3, padding=1, stride=2)
        self.grouped = nn.Conv2d(12, 12, 3, groups=3)
        self.depthwise = nn.Conv2d(12, 12, 2, groups=12)
        self.head = nn.Linear(12, 6)

    def forward(self, x):
        x = self.depthwise(self.grouped(self.conv(x).relu()).relu())
        return self.head(x.mean((2, 3)))


def _batches():
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(32, 8, 1, 1, generator=generator)
    return [(base + 0.3 * torch.randn(32, 8, 12, 12, generator=generator),) for _ in range(2)]


def _layer_errors(model, reference, batches):
    """Squared output error of each layer on the inputs it has in the quantized model."""
    frozen = copy.deepcopy(model)
    freeze_(frozen)
    errors, hooks = {}, []
    for name, layer in frozen.named_modules():
        if not isinstance(layer, nn.Linear | nn.Conv2d):
            continue

        def compare(layer, inputs, output, name=name):
            wanted = reference.get_submodule(name)(*inputs)
            errors[name] = errors.get(name, 0.0) + (output - wanted).square().sum().item()

        hooks.append(layer.register_forward_hook(compare))
    with torch.no_grad():
        for inputs in batches:
            frozen(*inputs)
    return errors


@pytest.mark.parametrize("is_masked", [False, True])
@pytest.mark.parametrize(("quantizer", "granularity", "bits"), CHOICES)
def test_output_error_is_never_above_round_to_nearest_s(quantizer, granularity, bits, is_masked):
    torch.manual_seed(0)
    reference, batches = _Net(), _batches()
    names = ("conv", "grouped", "depthwise", "head")
    model, masks = copy.deepcopy(reference), {}
    for name in names:
        layer = model.get_submodule(name)
        if is_masked:
            masks[name] = torch.rand(layer.weight.shape) > 0.3
            with torch.no_grad():
                reference.get_submodule(name).weight.mul_(masks[name])
            set_mask_(layer, masks[name])
        plan = LayerPlan(weight_bits=bits, quantizer=quantizer, granularity=granularity)
        quantize_(model, name, plan)
    for name in names:  # one layer at a time, so that the others' inputs stay what they were
        before = _layer_errors(model, reference, batches)[name]
        shares = compensate_(model, batches, [name]).error_shares
        after = _layer_errors(model, reference, batches)[name]
        assert list(shares) == [name]
        assert after <= before * (1 + 1e-4)
        assert after == pytest.approx(before * shares[name], rel=1e-2, abs=1e-6)
        if name in masks:
            weight = model.get_submodule(name).compressed_weight()
            assert (weight[~masks[name]] == 0).all()
    assert compensate_(model, batches, ["conv"]).error_shares["conv"] <= 1.0


def test_correlated_inputs_leave_much_less_error():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 20))
    quantize_(model, "0", LayerPlan(weight_bits=3))
    assert compensate_(model, [(_inputs(40),)]).error_shares["0"] < 0.6


def test_quantizer_rounds_exactly_to_what_was_chosen():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 20))
    quantize_(model, "0", LayerPlan(weight_bits=3))
    step = quantizer_of(model[0]).step.detach().clone()
    compensate_(model, [(_inputs(40),)])
    weight, levels = model[0].weight.detach(), quantizer_of(model[0]).levels()
    is_level = (weight[:, :, None] == levels[:, None]).any(-1)
    assert is_level.float().mean() > 0.9  # rows where rounding to nearest was better stay
    rounded = model[0].compressed_weight().detach()
    assert torch.equal(rounded[is_level], weight[is_level])
    assert torch.equal(quantizer_of(model[0]).step, step)


def test_layers_that_cannot_be_compensated_are_left_alone(zoo):
    model = copy.deepcopy(zoo("tied_weights").model)
    for name in ("embed", "hidden"):
        quantize_(model, name, LayerPlan(weight_bits=4))
    hashed = LayerPlan(weight_bits=4, quantizer="hashed", granularity="tensor")
    quantize_(model, "back", hashed)
    before = {n: p.clone() for n, p in model.named_parameters()}
    result = compensate_(model, [zoo("tied_weights").inputs])
    assert list(result.error_shares) == ["hidden"]
    assert result.skipped == (
        "rounding=compensated of 'embed' skipped: "
        "it is for linear layers and convolutions, not for embedding layers",
        "rounding=compensated of 'back' skipped: "
        "its weights share values and cannot be rounded one by one",
        "rounding=compensated of 'head' skipped: "
        "several layers own its weight, each with other inputs",
    )
    changed = [n for n, p in model.named_parameters() if not torch.equal(p, before[n])]
    assert changed == ["hidden.weight"]


def test_input_grids_need_not_be_settled():
    model = nn.Sequential(nn.Linear(40, 20))
    quantize_(model, "0", LayerPlan(weight_bits=8, activation_bits=8))
    assert list(compensate_(model, [(_inputs(40),)]).error_shares) == ["0"]


def test_nothing_quantized_is_nothing_to_do():
    expected = Compensation(error_shares={}, skipped=())
    assert compensate_(nn.Sequential(nn.Linear(4, 4)), []) == expected


def _quantized():
    torch.manual_seed(0)
    model = _Net()
    for name in ("conv", "grouped", "depthwise", "head"):
        quantize_(model, name, LayerPlan(weight_bits=3))
    return model


def test_statistics_of_one_layer_at_a_time_give_the_same_weights(monkeypatch, model_hash):
    """Also where batches can be read only once; every pass sees the model as it was before."""
    at_once, one_by_one = _quantized(), _quantized()
    held, gather = [], error_compensation.input_second_moments

    def counting(model, names, batches):
        moments = gather(model, names, batches)
        held.append(sum(moment.nbytes for moment in moments.values()))
        return moments

    monkeypatch.setattr(error_compensation, "input_second_moments", counting)
    expected = compensate_(at_once, iter(_batches()))
    assert held == [8 * (72**2 + 3 * 36**2 + 12 * 4**2 + 12**2)]
    limit = 8 * 72**2
    monkeypatch.setattr(error_compensation, "_PASS_BYTES", limit)
    assert compensate_(one_by_one, iter(_batches())) == expected
    assert model_hash(one_by_one) == model_hash(at_once)
    assert len(held) == 3
    assert max(held[1:]) <= limit


def test_layer_of_too_many_inputs_is_left_alone_and_says_so(monkeypatch):
    model = _quantized()
    monkeypatch.setattr(input_moments, "MOST_MOMENT_BYTES", 8 * 70**2)
    result = compensate_(model, _batches())
    assert list(result.error_shares) == ["grouped", "depthwise", "head"]
    (note,) = result.skipped
    assert note.startswith("rounding=compensated of 'conv' skipped: statistics of its 72 inputs ")


def test_layer_that_no_batch_reaches_or_whose_inputs_are_infinite_is_left_alone():
    for batches, reason in (
        ([], "no batch has reached the layer"),
        ([(torch.full((2, 40), torch.inf),)], "its inputs are not all finite"),
    ):
        model = nn.Sequential(nn.Linear(40, 20))
        quantize_(model, "0", LayerPlan(weight_bits=3))
        before = model[0].weight.detach().clone()
        assert compensate_(model, batches) == Compensation(
            error_shares={}, skipped=(f"rounding=compensated of '0' skipped: {reason}",)
        )
        assert torch.equal(model[0].weight, before)


def test_recurrent_layer_is_left_alone_and_says_so():
    model = nn.ModuleDict({"rnn": nn.LSTM(6, 4)})
    quantize_(model, "rnn", LayerPlan(weight_bits=3))
    assert compensate_(model, []).skipped == (
        "rounding=compensated of 'rnn' skipped: "
        "it is for linear layers and convolutions, not for recurrent layers",
    )
