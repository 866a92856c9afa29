import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from autocompress.compress.quantize import quantize_
from autocompress.errors import TrialError
from autocompress.plan import LayerPlan
from autocompress.train.distill import soft_label_loss
from autocompress.train.loop import Throughput, _parameter_groups, steps_of
from autocompress.train.recipe import Recipe, rate_share

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=2, learning_rate=0.05, batch_size=16)
LONG = {"epochs": 10, "learning_rate": 0.05, "batch_size": 16}


@pytest.mark.parametrize("distill", ["kl", "mse", "none"])
def test_finetune_is_the_same_for_a_seed(prepared, model_hash, distill, tune):
    recipe = Recipe(epochs=1, learning_rate=0.05, batch_size=16, distill=distill)
    hashes = [model_hash(tune(prepared, recipe, seed=seed)[0]) for seed in (1, 1, 2)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_finetune_does_not_depend_on_what_was_drawn_before(prepared, model_hash, tune):
    first = model_hash(tune(prepared)[0])
    torch.rand(7)
    assert model_hash(tune(prepared)[0]) == first


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_finetune_lowers_the_loss(prepared, precision, tune):
    recipe = Recipe(epochs=10, learning_rate=0.05, batch_size=16, distill="none")
    model, _ = tune(prepared, recipe, precision=precision)
    inputs, targets = prepared.train.batch(slice(None))
    with torch.no_grad():
        before = prepared.task.loss(copy.deepcopy(prepared.task.model).eval()(*inputs), targets)
        after = prepared.task.loss(model(*inputs), targets)
    assert after < 0.5 * before


def test_finetune_leaves_eval_mode_and_teacher(prepared, model_hash, tune):
    before = model_hash(prepared.task.model)
    model, _ = tune(prepared)
    assert not any(module.training for module in model.modules())
    assert model_hash(prepared.task.model) == before


def test_finetune_reports_its_steps_and_images(prepared, tune):
    steps = []
    _, throughput = tune(prepared, on_step=lambda step, n: steps.append((step, n)))
    assert steps == [(i + 1, 12) for i in range(12)]  # 100 // 16 batches, twice
    assert throughput.n_images == 12 * 16
    assert throughput.images_per_s == throughput.n_images / throughput.seconds


@pytest.mark.parametrize("batch_size", [16, 1000])
@pytest.mark.parametrize("epochs", [0.01, 0.5, 1, 2.4])
def test_steps_of_a_recipe_are_those_finetune_takes(prepared, tune, epochs, batch_size):
    recipe = Recipe(epochs=epochs, learning_rate=0.05, batch_size=batch_size)
    steps = []
    tune(prepared, recipe, on_step=lambda step, n: steps.append((step, n)))
    assert steps_of(recipe, prepared) == len(steps) == steps[-1][1]


def test_steps_of_a_recipe_are_its_epochs_in_whole_batches(prepared):
    def steps(epochs, batch_size=16):
        recipe = Recipe(epochs=epochs, learning_rate=0.05, batch_size=batch_size)
        return steps_of(recipe, prepared)  # 100 examples

    assert [steps(epochs) for epochs in (1e-6, 0.2, 0.5, 1, 3)] == [1, 1, 3, 6, 18]
    assert steps(2, batch_size=1000) == 2


def test_finetune_takes_a_share_of_an_epoch(prepared, tune):
    recipe = Recipe(epochs=0.5, learning_rate=0.05, batch_size=16)
    assert tune(prepared, recipe)[1].n_images == 3 * 16


def test_finetune_takes_a_batch_larger_than_the_data(prepared, tune):
    recipe = Recipe(epochs=1, learning_rate=0.05, batch_size=1000)
    assert tune(prepared, recipe)[1].n_images == 100


def test_throughput_of_nothing_is_none():
    assert Throughput(n_images=0, seconds=0.0).images_per_s is None


def test_cached_teacher_equals_a_teacher_that_is_asked(prepared, tune):
    teacher = copy.deepcopy(prepared.task.model).eval()
    with torch.no_grad():
        cached = teacher(*prepared.train.batch(slice(None))[0])
    asked, looked_up = tune(prepared)[0], tune(prepared, cached=cached)[0]
    for a, b in zip(asked.parameters(), looked_up.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_augmentation_changes_what_is_learned_and_is_seeded(prepared, model_hash, tune, changed):
    def jitter(inputs, generator):
        return (inputs[0] + torch.randn(inputs[0].shape, generator=generator),)

    augmented = changed(augment=jitter)
    plain, first, again = (model_hash(tune(p)[0]) for p in (prepared, augmented, augmented))
    assert first == again != plain


def test_loss_that_is_not_a_number_fails_the_trial(prepared, tune, changed):
    def loss(outputs, targets):
        return outputs.mean() * (float("nan") if outputs.requires_grad else 1.0)

    recipe = Recipe(epochs=1, learning_rate=0.05, batch_size=16, distill="none")
    with pytest.raises(TrialError, match=r"The loss became nan in step 1 of 6\.") as caught:
        tune(changed(loss=loss), recipe)
    assert caught.value.reason == "nonfinite_loss"


def test_schedule_warms_up_and_falls_to_zero():
    shares = [rate_share(step, 2000) for step in range(2000)]
    peak = shares.index(max(shares))
    assert peak == 100
    assert max(shares) == 1.0
    assert shares[:101] == sorted(shares[:101])
    assert shares[100:] == sorted(shares[100:], reverse=True)
    assert shares[0] == pytest.approx(1 / 101)
    assert 0.0 < shares[-1] < 1e-5
    assert shares[100 + 950] == pytest.approx(0.5)


@pytest.mark.parametrize("n_steps", [1, 2, 5])
def test_schedule_of_few_steps_still_learns(n_steps):
    assert all(0.0 < rate_share(step, n_steps) <= 1.0 for step in range(n_steps))
    assert rate_share(0, n_steps) == 1.0


def test_weight_decay_is_on_weights_only(prepared):
    model = copy.deepcopy(prepared.task.model)
    quantize_(model, "0", LayerPlan(weight_bits=4, activation_bits=8))
    quantize_(model, "3", LayerPlan(weight_bits=4, granularity="group:8"))
    model[3].bias.requires_grad_(False)
    decayed, kept = _parameter_groups(model)
    assert (decayed["weight_decay"], kept["weight_decay"]) == (1e-4, 0.0)
    assert {id(p) for p in decayed["params"]} == {id(model[0].weight), id(model[3].weight)}
    free = [
        *(model[0].bias, model[1].weight, model[1].bias),
        *model[0].weight_quantizer.parameters(),
        *model[0].input_quantizer.parameters(),
        *model[3].weight_quantizer.parameters(),
    ]
    assert {id(p) for p in kept["params"]} == {id(p) for p in free}


def test_gates_are_trained_without_weight_decay(prepared):
    gate = nn.Parameter(torch.zeros(3, 4))
    *_, own = _parameter_groups(prepared.task.model, (gate,))
    assert own["params"] == [gate]
    assert own["weight_decay"] == 0.0


@pytest.mark.parametrize("distill", ["kl", "none"])
def test_a_plain_recipe_trains_bit_for_bit_like_a_plain_loop(prepared, model_hash, distill, tune):
    recipe = dataclasses.replace(RECIPE, distill=distill)
    model, teacher = (copy.deepcopy(prepared.task.model) for _ in range(2))
    teacher.eval()
    torch.manual_seed(5)
    generator = torch.Generator().manual_seed(5)
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": weights, "weight_decay": 1e-4}, {"params": others}]
    optimizer = torch.optim.SGD(groups, lr=0.05, momentum=0.9, nesterov=True)
    model.train()
    for epoch in range(2):
        order = torch.randperm(100, generator=generator)
        for i, indices in enumerate(reversed(order.split(16)[:6])):
            for group in optimizer.param_groups:
                group["lr"] = 0.05 * rate_share(6 * epoch + i, 12)
            inputs, targets = prepared.train.batch(indices)
            outputs = model(*inputs)
            loss = F.cross_entropy(outputs, targets)
            if distill == "kl":
                with torch.no_grad():
                    wanted = teacher(*inputs)
                loss = 0.3 * loss + (1.0 - 0.3) * soft_label_loss(outputs, wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert model_hash(tune(prepared, recipe, seed=5)[0]) == model_hash(model)
