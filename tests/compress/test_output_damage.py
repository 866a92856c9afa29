import copy

import pytest
import torch
from torch import nn

from autocompress.compress.compressed_layers import set_mask_
from autocompress.compress.input_moments import input_second_moments
from autocompress.compress.output_damage import OutputDamage
from autocompress.compress.quantize import quantize_
from autocompress.plan import LayerPlan


def _batches(n_batches=2, n_examples=64):
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(n_examples, 12, generator=generator),) for _ in range(n_batches)]


def _moment(model, name, batches):
    return input_second_moments(model, [name], batches)[name][None]


class _Scaled(nn.Module):
    """Two outputs of one layer, which the model's output scales by a number each."""

    def __init__(self, scale):
        super().__init__()
        self.layer = nn.Linear(12, 2, bias=False)
        self.scale = torch.tensor(scale)

    def forward(self, x):
        return self.layer(x) * self.scale


class _Sum(nn.Module):
    """Three layers that count in full, a tenth and not at all."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(12, 6), nn.Linear(12, 6), nn.Linear(12, 6)

    def forward(self, x):
        return self.a(x) + 0.1 * self.b(x) + 0.0 * self.c(x)


def test_damage_of_the_last_layer_is_its_error_over_the_variance():
    """Outputs are those of the layer: the error is summed over them, the damage is their mean."""
    torch.manual_seed(0)
    model, batches = _Scaled([1.0, 1.0]), _batches()
    x = torch.cat([inputs[0] for inputs in batches])
    variance = model(x).var(correction=0).item()
    got = OutputDamage(model, batches).per_error("layer", _moment(model, "layer", batches))
    assert got == pytest.approx(0.5 / variance, rel=1e-3)


def test_damage_is_a_share_so_the_scale_of_outputs_does_not_count():
    torch.manual_seed(0)
    one, batches = _Scaled([1.0, 1.0]), _batches()
    thousand = copy.deepcopy(one)
    thousand.scale = torch.tensor([1000.0, 1000.0])
    moment = _moment(one, "layer", batches)
    expected = OutputDamage(one, batches).per_error("layer", moment)
    got = OutputDamage(thousand, batches).per_error("layer", moment)
    assert got == pytest.approx(expected, rel=1e-5)


def test_layer_that_matters_less_is_damaged_less_but_never_not_at_all():
    torch.manual_seed(0)
    model, batches = _Sum(), _batches()
    damage = OutputDamage(model, batches)
    a, b, c = (damage.per_error(name, _moment(model, name, batches)) for name in "abc")
    assert b == pytest.approx(0.01 * a, rel=0.3)
    assert 0 < c < b


def test_layer_without_output_has_no_damage_per_error():
    model, batches = _Scaled([1.0, 1.0]), _batches()
    with torch.no_grad():
        model.layer.weight.zero_()
    moment = _moment(model, "layer", batches)
    assert OutputDamage(model, batches).per_error("layer", moment) is None


def test_batch_norm_takes_back_what_only_scales():
    """As re-estimated statistics would; the model's own are left as they are."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)).eval()
    stale = copy.deepcopy(net)
    stale[1].running_var.fill_(100.0)
    batches = _batches()
    moment = _moment(net, "0", batches)
    fresh, other = (OutputDamage(m, batches).per_error("0", moment) for m in (net, stale))
    assert other == fresh
    assert (stale[1].running_var == 100.0).all()


def test_batches_of_one_example_leave_batch_norms_as_they_are():
    net = nn.Sequential(nn.Linear(12, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)).eval()
    batches = _batches(n_batches=5, n_examples=1)
    damage = OutputDamage(net, batches).per_error("0", _moment(net, "0", batches))
    assert damage is not None
    assert damage > 0


def test_outputs_may_differ_in_length_from_batch_to_batch():
    torch.manual_seed(0)
    model = nn.Linear(12, 3)
    long, short = torch.randn(20, 7, 12), torch.randn(20, 4, 12)
    moment = input_second_moments(nn.Sequential(model), ["0"], [(long,), (short,)])["0"][None]
    got = OutputDamage(nn.Sequential(model), [(long,), (short,)]).per_error("0", moment)
    outputs = torch.cat([model(long).flatten(), model(short).flatten()])
    assert got == pytest.approx(1 / 3 / outputs.var(correction=0).item(), rel=1e-3)


def test_model_whose_outputs_are_not_finite_has_no_damage_per_error():
    model, batches = _Scaled([1.0, float("inf")]), _batches()
    assert OutputDamage(model, batches).per_error("layer", torch.eye(12)[None]) is None


def test_masks_count_and_grids_do_not():
    torch.manual_seed(0)
    model, batches = _Scaled([1.0, 1.0]), _batches()
    mask = torch.rand(2, 12) > 0.5
    masked = copy.deepcopy(model)
    with torch.no_grad():
        masked.layer.weight.mul_(mask)
    moment = _moment(model, "layer", batches)
    expected = OutputDamage(masked, batches).per_error("layer", moment)
    set_mask_(model.layer, mask)
    quantize_(model, "layer", LayerPlan(weight_bits=2))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert OutputDamage(model, batches).per_error("layer", moment) == expected
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
