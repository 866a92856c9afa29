import copy
import weakref

import pytest
import torch
from torch import nn

from autocompress.compress import error_compensation, input_moments
from autocompress.compress.compressed_layers import quantizer_of, set_mask_
from autocompress.compress.error_compensation import Compensation, compensate_, has_rate_penalty
from autocompress.compress.output_damage import N_EXAMPLES
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


@pytest.mark.parametrize(
    ("quantizer", "granularity", "bits", "is_masked"),
    [(*CHOICES[0], True), *((*choice, i % 2 == 1) for i, choice in enumerate(CHOICES))],
)
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


def _quantized(bits=3, price=0.0):
    torch.manual_seed(0)
    model = _Net()
    for name in ("conv", "grouped", "depthwise", "head"):
        quantize_(model, name, LayerPlan(weight_bits=bits, rate_price=price))
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
        for price, asked in ((0.0, "rounding=compensated"), (0.1, "rate_price=0.1")):
            model = nn.Sequential(nn.Linear(40, 20))
            quantize_(model, "0", LayerPlan(weight_bits=3, rate_price=price))
            before = model[0].weight.detach().clone()
            assert compensate_(model, batches) == Compensation(
                error_shares={}, skipped=(f"{asked} of '0' skipped: {reason}",)
            )
            assert torch.equal(model[0].weight, before)


def test_recurrent_layer_is_left_alone_and_says_so():
    model = nn.ModuleDict({"rnn": nn.LSTM(6, 4)})
    quantize_(model, "rnn", LayerPlan(weight_bits=3))
    assert compensate_(model, []).skipped == (
        "rounding=compensated of 'rnn' skipped: "
        "it is for linear layers and convolutions, not for recurrent layers",
    )


def test_only_layers_with_a_price_are_looked_at_where_that_is_asked_for():
    model = _quantized(6)
    quantizer_of(model.grouped).rate_price = 0.1
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    assert list(compensate_(model, _batches(), only_priced=True).error_shares) == ["grouped"]
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {"grouped.weight", "grouped.weight_quantizer.step"}
    assert compensate_(_quantized(6), _batches(), only_priced=True).error_shares == {}


def test_a_model_is_priced_if_one_of_its_layers_is():
    model = _quantized(6)
    assert not has_rate_penalty(model)
    quantizer_of(model.head).rate_price = 0.1
    assert has_rate_penalty(model)


def test_price_of_a_layer_does_not_depend_on_which_others_have_one(model_hash):
    """It is per weight of the whole model, so that knobs of single layers can be told apart."""
    alone, among = _quantized(6), _quantized(6, price=0.05)
    quantizer_of(alone.conv).rate_price = 0.05
    for model in (alone, among):
        compensate_(model, _batches(), ["conv"])
    assert model_hash(alone.conv) == model_hash(among.conv)


def _entropy(model):
    """Bits of all weights by the shares of each layer's values, in units of its channels' steps."""
    total = 0.0
    for name in ("conv", "grouped", "depthwise", "head"):
        layer = model.get_submodule(name)
        codes = torch.from_numpy(quantizer_of(layer).freeze(layer.weight).codes).long().flatten()
        counts = (codes - codes.min()).bincount().double()
        total -= float((counts * (counts / counts.sum()).clamp_min(1e-300).log2()).sum())
    return total


def test_higher_price_leaves_fewer_bits_and_does_more_damage():
    reference, batches = _quantized(6), _batches()
    with torch.no_grad():
        wanted = torch.cat([reference(*inputs) for inputs in batches])
    bits, damages = [], []
    for price in (0.0, 0.001, 0.01, 0.1):
        model = _quantized(6, price)
        compensate_(model, batches)
        with torch.no_grad():
            outputs = torch.cat([model(*inputs) for inputs in batches])
        bits.append(_entropy(model))
        damages.append(float((outputs - wanted).square().mean()))
    assert bits == sorted(bits, reverse=True)
    assert damages[1:] == sorted(damages[1:])
    assert bits[-1] < bits[0] / 2


@pytest.mark.parametrize(("quantizer", "granularity", "bits"), CHOICES)
def test_price_keeps_weights_on_the_grid_and_masks_at_zero(quantizer, granularity, bits):
    """Codebooks, fixed-point and binary grids stay as they are; steps of others only grow."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 20))
    mask = torch.rand(20, 40) > 0.3
    set_mask_(model[0], mask)
    plan = LayerPlan(weight_bits=bits, quantizer=quantizer, granularity=granularity, rate_price=0.1)
    quantize_(model, "0", plan)
    before = quantizer_of(model[0]).levels()
    result = compensate_(model, [(_inputs(40),)])
    assert list(result.error_shares) == ["0"]
    after = quantizer_of(model[0]).levels()
    if quantizer == "uniform" and bits != 1:
        assert (after[:, -1] >= before[:, -1]).all()
        assert (after[:, -1] > before[:, -1]).any()
    else:
        assert torch.equal(after, before)
    weight = model[0].compressed_weight().detach()
    assert (weight[~mask] == 0).all()
    allowed = torch.cat([after.flatten(), torch.zeros(1)])
    assert torch.isin(weight, allowed).all()


def test_channels_of_a_layer_share_one_step_where_the_price_sets_it():
    model = _quantized(8, price=0.1)
    compensate_(model, _batches())
    steps = quantizer_of(model.conv).step.detach()
    assert (steps == steps[0]).all()
    per_group = quantizer_of(model.grouped).step.detach().reshape(3, 4)
    assert (per_group == per_group[:, :1]).all()
    assert len(per_group.unique()) == 3  # of other inputs, so of other steps


def test_dead_layer_has_no_price_and_is_compensated():
    model = nn.Sequential(nn.Linear(40, 20))
    quantize_(model, "0", LayerPlan(weight_bits=4, rate_price=0.1))
    step = quantizer_of(model[0]).step.detach().clone()
    compensate_(model, [(torch.zeros(5, 40),)])
    assert torch.equal(quantizer_of(model[0]).step, step)


def test_skipped_layers_are_told_with_their_price():
    model = nn.ModuleDict({"rnn": nn.LSTM(6, 4)})
    quantize_(model, "rnn", LayerPlan(weight_bits=3, rate_price=0.1))
    (note,) = compensate_(model, [], only_priced=True).skipped
    assert note.startswith("rate_price=0.1 of 'rnn' skipped: ")


def test_batches_are_read_once_and_not_kept_where_one_pass_is_enough():
    """Also with a price, for which the first examples are enough."""
    model, alive = _quantized(8, price=0.1), []

    def batches():
        for batch in _batches() * 10:
            inputs = tuple(tensor.clone() for tensor in batch)
            alive.append(weakref.ref(inputs[0]))
            yield inputs
            del inputs
            n_alive.append(sum(ref() is not None for ref in alive))

    n_alive = []
    expected = compensate_(_quantized(8, price=0.1), tuple(_batches() * 10))
    assert compensate_(model, batches()) == expected
    n_examples = len(_batches()[0][0])
    assert max(n_alive) <= -(-N_EXAMPLES // n_examples) + 2 < len(alive)


def test_levels_that_no_weight_comes_near_are_not_compared():
    levels = torch.arange(-127.0, 128.0)[None, None, None]
    weight = torch.tensor([[[-1.6, 0.3, 2.2]]])
    near = error_compensation._within_reach(levels, weight)
    assert near.flatten().tolist() == list(range(-5, 7))
    assert torch.equal(error_compensation._within_reach(levels, weight + 1e6), levels)


def test_tied_weights_keep_the_price_of_the_first_and_say_so():
    model = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)})
    model["b"].weight = model["a"].weight
    assert quantize_(model, "a", LayerPlan(weight_bits=4)) == ()
    (note,) = quantize_(model, "b", LayerPlan(weight_bits=4, rate_price=0.1))
    assert note.startswith("rate_price=0.1 of 'b' skipped: its weight is that of a layer whose")
    assert not has_rate_penalty(model)
