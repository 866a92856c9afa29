import copy

import pytest
import torch
from torch import nn

from autocompress.compress.input_quantizer import InputQuantizer
from autocompress.compress.quantize import quantize_
from autocompress.plan import LayerPlan
from autocompress.tasks.base import Task, TensorData
from autocompress.tasks.prepare import PreparedTask
from autocompress.train.recalibrate import calibration_batches, recalibrate_


def _batches(n=3, size=16):
    return [(torch.randn(size, 12) * 2 + 1,) for _ in range(n)]


def test_batch_norm_averages_the_batches_statistics(zoo):
    model = copy.deepcopy(zoo("mlp").model)
    batches = _batches()
    with torch.no_grad():
        inputs = [model.fc1(x) for (x,) in batches]
    recalibrate_(model, iter(batches))
    torch.testing.assert_close(
        model.norm.running_mean, torch.stack([x.mean(0) for x in inputs]).mean(0)
    )
    torch.testing.assert_close(
        model.norm.running_var, torch.stack([x.var(0) for x in inputs]).mean(0)
    )


def test_recalibrate_touches_statistics_only(zoo_net):
    model = copy.deepcopy(zoo_net.model).train()
    parameters = {name: p.clone() for name, p in model.named_parameters()}
    momenta = [getattr(module, "momentum", None) for module in model.modules()]
    recalibrate_(model, [zoo_net.inputs])
    assert all(torch.equal(p, parameters[name]) for name, p in model.named_parameters())
    assert [getattr(module, "momentum", None) for module in model.modules()] == momenta
    assert not any(module.training for module in model.modules())


def test_recalibrate_leaves_batch_norm_when_told(zoo, model_hash):
    model = copy.deepcopy(zoo("mlp").model)
    before = model_hash(model)
    recalibrate_(model, _batches(), batch_norm=False)
    assert model_hash(model) == before


def test_recalibrate_skips_single_examples_where_batch_norm_needs_more(zoo):
    model, other = (copy.deepcopy(zoo("mlp").model) for _ in range(2))
    batches = _batches()
    recalibrate_(model, [*batches, (torch.full((1, 12), 1e6),)])
    recalibrate_(other, batches)
    assert torch.equal(model.norm.running_mean, other.norm.running_mean)


def test_input_grids_are_laid_over_the_range_of_all_batches():
    model = nn.Sequential(nn.Linear(12, 4))
    quantize_(model, "0", LayerPlan(weight_bits=8, activation_bits=8))
    batches = _batches()
    recalibrate_(model, batches)
    values = torch.cat([x for (x,) in batches])
    low, high = values.min().item(), values.max().item()
    grid = model[0].input_quantizer
    assert isinstance(grid, InputQuantizer)
    assert not grid.is_observing
    assert grid.step.item() == pytest.approx((high - low) / 255)
    assert int(grid.zero_point) == round(-low / ((high - low) / 255))


def test_input_grids_stay_when_told():
    model = nn.Sequential(nn.Linear(12, 4))
    quantize_(model, "0", LayerPlan(weight_bits=8, activation_bits=8))
    recalibrate_(model, _batches())
    step = model[0].input_quantizer.step.item()
    recalibrate_(model, [(torch.full((2, 12), 100.0),)], grids=False)
    assert model[0].input_quantizer.step.item() == step


def test_input_grids_are_observed_anew_each_time():
    model = nn.Sequential(nn.Linear(12, 4))
    quantize_(model, "0", LayerPlan(weight_bits=8, activation_bits=8))
    recalibrate_(model, [(torch.full((2, 12), 100.0),)])
    recalibrate_(model, [(torch.full((2, 12), 1.0),)])
    assert model[0].input_quantizer.step.item() == pytest.approx(1.0 / 255)


def _prepared(n, augment=None):
    data = TensorData((torch.arange(float(n))[:, None],), torch.zeros(n), _double)
    task = Task(model=nn.Linear(1, 1), train=data, augment=augment)
    return PreparedTask(task=task, train=data, val=data, test=None, is_val_carved=False)


def _double(inputs):
    return (inputs[0] * 2,)


def _noise(inputs, generator):
    return (inputs[0] + torch.rand(inputs[0].shape, generator=generator),)


@pytest.mark.parametrize("augment", [None, _noise])
def test_calibration_batches_are_the_same_for_a_seed(augment):
    first, again, other = (
        [x.flatten().tolist() for (x,) in calibration_batches(_prepared(20, augment), 6, 3, seed)]
        for seed in (1, 1, 2)
    )
    assert first == again != other
    assert [len(batch) for batch in first] == [6, 6, 6]
    assert len({value for batch in first for value in batch}) == 18


def test_calibration_batches_are_transformed_and_stop_at_the_data():
    batches = list(calibration_batches(_prepared(5), 64, 4, seed=0))
    assert sorted(batches[0][0].flatten().tolist()) == [0.0, 2.0, 4.0, 6.0, 8.0]
    assert len(batches) == 1


def test_calibration_batches_are_augmented_before_the_transform():
    ((x,),) = calibration_batches(_prepared(5, _noise), 64, 4, seed=0)
    shares = (x.flatten() / 2).frac()
    assert (shares > 0).all()
    assert ((x.flatten() / 2).floor().sort().values == torch.arange(5)).all()
