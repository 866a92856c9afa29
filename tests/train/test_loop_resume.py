"""A training that is left between two epochs and taken up again is the training."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from autocompress.compress.quantize import quantize_
from autocompress.plan import LayerPlan
from autocompress.train.entropy import mean_code_bits
from autocompress.train.loop import Training, finetune_
from autocompress.train.recalibrate import calibration_batches, recalibrate_
from autocompress.train.recipe import Recipe
from autocompress.train.teachers import Teacher

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=4, learning_rate=0.05, batch_size=16)


def jitter(inputs, generator):
    return (inputs[0] + 0.1 * torch.randn(inputs[0].shape, generator=generator),)


@pytest.fixture(scope="module")
def task(changed):
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 5)
    )
    return changed(model=model, augment=jitter)


def fresh(task, *, is_quantized):
    model = copy.deepcopy(task.task.model)
    if is_quantized:
        for name in ("0", "4"):
            quantize_(model, name, LayerPlan(weight_bits=3, activation_bits=8))
        recalibrate_(model, calibration_batches(task, 32, 2, 0), grids=True)
    return model


def opened(task, model, recipe):
    teacher = Teacher(model=copy.deepcopy(task.task.model).eval(), cached=None)
    return Training(model, task, teacher, recipe, seed=3, device=CPU, precision="fp32")


def whole(task, recipe, **kind):
    model = fresh(task, **kind)
    with opened(task, model, recipe) as training:
        training.run(training.n_steps)
    return model.state_dict(), training


@pytest.mark.parametrize(
    ("changes", "is_quantized"),
    [
        ({}, False),
        ({"entropy_strength": 0.5}, True),
        ({"features": "similarity"}, True),
        ({"penalty": "l0"}, False),
    ],
    ids=["float", "quantized", "features", "gates"],
)
def test_training_in_pieces_is_the_training(task, changes, is_quantized):
    recipe = dataclasses.replace(RECIPE, **changes)
    expected, unbroken = whole(task, recipe, is_quantized=is_quantized)
    model, state = fresh(task, is_quantized=is_quantized), None
    for _ in range(4):
        kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        torch.rand(7)  # whatever else a process draws
        model = fresh(task, is_quantized=is_quantized)
        model.load_state_dict(kept)
        with opened(task, model, recipe) as training:
            if state is not None:
                training.resume_(state)
            training.run(training.steps_per_epoch)
            state = training.state()
            kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            is_over = training.step == training.n_steps
        if not is_over:
            model.load_state_dict(kept)  # gates are multiplied in where the block ends
    assert training.n_images == unbroken.n_images
    assert model.state_dict().keys() == expected.keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_state_is_not_changed_by_what_comes_after(task):
    with opened(task, fresh(task, is_quantized=False), RECIPE) as training:
        training.run(training.steps_per_epoch)
        state = training.state()
        before = {name: tensor.clone() for name, tensor in state.items()}
        training.run(training.steps_per_epoch)
    assert all(torch.equal(state[name], before[name]) for name in before)


def test_state_of_a_training_that_ends_within_an_epoch(task):
    recipe = dataclasses.replace(RECIPE, epochs=1.5)
    with opened(task, fresh(task, is_quantized=False), recipe) as training:
        training.run(training.n_steps)
        assert training.state()["counts"].tolist() == [9, 9 * 16]


def test_finetune_is_one_whole_training(task):
    expected, _ = whole(task, RECIPE, is_quantized=True)
    model = fresh(task, is_quantized=True)
    teacher = Teacher(model=copy.deepcopy(task.task.model).eval(), cached=None)
    finetune_(model, task, teacher, RECIPE, seed=3, device=CPU, precision="fp32")
    assert all(torch.equal(t, expected[name]) for name, t in model.state_dict().items())


def test_renewed_parameters_keep_their_momentum_and_take_up_new_ones(task):
    model = fresh(task, is_quantized=True)
    with opened(task, model, RECIPE) as training:
        training.run(training.steps_per_epoch)
        before = training.state()
        quantizer = model[0].weight_quantizer
        quantizer.step = nn.Parameter(quantizer.step.detach().clone())
        training.renew_parameters()
        after = training.state()
        assert before.keys() - after.keys() == {"momentum.0.weight_quantizer.step"}
        assert all(torch.equal(after[name], before[name]) for name in after)
        step = quantizer.step.detach().clone()
        training.run(training.steps_per_epoch)
        assert not torch.equal(quantizer.step, step)
        assert training.state().keys() == before.keys()


def test_entropy_rises_in_the_third_quarter_and_is_in_full_throughout_where_bits_have_a_price(task):
    model = fresh(task, is_quantized=True)
    recipe = dataclasses.replace(RECIPE, epochs=8 / 6)
    with opened(task, model, recipe) as training:
        assert training.n_steps == 8
        shares = [training.entropy_share(step) for step in range(9)]
    assert shares == [0, 0, 0, 0, 0, 0.5, 1, 1, 1]
    model[0].weight_quantizer.rate_price = 0.1
    with opened(task, model, recipe) as training:
        assert {training.entropy_share(step) for step in range(9)} == {1}


def test_entropy_strength_lowers_the_bits_of_codes(task):
    def bits(strength):
        recipe = dataclasses.replace(RECIPE, epochs=20, entropy_strength=strength)
        model = fresh(task, is_quantized=True)
        with opened(task, model, recipe) as training:
            training.run(training.n_steps)
        with torch.no_grad():
            return float(mean_code_bits(model))

    free, cheap, dear = (bits(strength) for strength in (0.0, 0.5, 5.0))
    assert dear < cheap - 0.2 < free - 0.4


def test_entropy_strength_does_nothing_to_a_float_model(task):
    states = [
        whole(task, dataclasses.replace(RECIPE, entropy_strength=s), is_quantized=False)[0]
        for s in (0.0, 5.0)
    ]
    assert all(torch.equal(a, b) for a, b in zip(*(s.values() for s in states), strict=True))
