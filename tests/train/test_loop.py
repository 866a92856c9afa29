import copy

import pytest
import torch
from torch import nn

from autocompress.compress.quantize import quantize_
from autocompress.errors import TrialError
from autocompress.tasks.base import Task
from autocompress.tasks.prepare import prepare_task
from autocompress.train.loop import (
    Recipe,
    Teacher,
    Throughput,
    _parameter_groups,
    _schedule,
    finetune_,
)

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=2, learning_rate=0.05, batch_size=16)


@pytest.fixture(scope="module")
def prepared():
    torch.manual_seed(0)
    centres = torch.randn(5, 12) * 2
    targets = torch.arange(100) % 5
    inputs = centres[targets] + torch.randn(100, 12) * 0.3
    model = nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 5))
    return prepare_task(Task(model=model, train=(inputs, targets), val=(inputs, targets)))


def _with(prepared, **changes):
    task = prepared.task
    fields = {"model": task.model, "train": prepared.train, "val": prepared.val, **changes}
    return prepare_task(Task(**fields))


def _tune(prepared, recipe=RECIPE, *, seed=0, cached=None, on_step=None, precision="fp32"):
    model = copy.deepcopy(prepared.task.model)
    teacher = Teacher(model=copy.deepcopy(prepared.task.model).eval(), cached=cached)
    throughput = finetune_(
        model,
        prepared,
        teacher,
        recipe,
        seed=seed,
        device=CPU,
        precision=precision,
        on_step=on_step,
    )
    return model, throughput


@pytest.mark.parametrize("distill", ["kl", "mse", "none"])
def test_finetune_is_the_same_for_a_seed(prepared, model_hash, distill):
    recipe = Recipe(epochs=1, learning_rate=0.05, batch_size=16, distill=distill)
    hashes = [model_hash(_tune(prepared, recipe, seed=seed)[0]) for seed in (1, 1, 2)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_finetune_does_not_depend_on_what_was_drawn_before(prepared, model_hash):
    first = model_hash(_tune(prepared)[0])
    torch.rand(7)
    assert model_hash(_tune(prepared)[0]) == first


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_finetune_lowers_the_loss(prepared, precision):
    recipe = Recipe(epochs=10, learning_rate=0.05, batch_size=16, distill="none")
    model, _ = _tune(prepared, recipe, precision=precision)
    inputs, targets = prepared.train.batch(slice(None))
    with torch.no_grad():
        before = prepared.task.loss(copy.deepcopy(prepared.task.model).eval()(*inputs), targets)
        after = prepared.task.loss(model(*inputs), targets)
    assert after < 0.5 * before


def test_finetune_leaves_eval_mode_and_teacher(prepared, model_hash):
    before = model_hash(prepared.task.model)
    model, _ = _tune(prepared)
    assert not any(module.training for module in model.modules())
    assert model_hash(prepared.task.model) == before


def test_finetune_reports_its_steps_and_images(prepared):
    steps = []
    _, throughput = _tune(prepared, on_step=lambda step, n: steps.append((step, n)))
    assert steps == [(i + 1, 12) for i in range(12)]  # 100 // 16 batches, twice
    assert throughput.n_images == 12 * 16
    assert throughput.images_per_s == throughput.n_images / throughput.seconds


def test_finetune_takes_a_share_of_an_epoch(prepared):
    recipe = Recipe(epochs=0.5, learning_rate=0.05, batch_size=16)
    assert _tune(prepared, recipe)[1].n_images == 3 * 16


def test_finetune_takes_a_batch_larger_than_the_data(prepared):
    recipe = Recipe(epochs=1, learning_rate=0.05, batch_size=1000)
    assert _tune(prepared, recipe)[1].n_images == 100


def test_throughput_of_nothing_is_none():
    assert Throughput(n_images=0, seconds=0.0).images_per_s is None


def test_cached_teacher_equals_a_teacher_that_is_asked(prepared):
    teacher = copy.deepcopy(prepared.task.model).eval()
    with torch.no_grad():
        cached = teacher(*prepared.train.batch(slice(None))[0])
    asked, looked_up = _tune(prepared)[0], _tune(prepared, cached=cached)[0]
    for a, b in zip(asked.parameters(), looked_up.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_augmentation_changes_what_is_learned_and_is_seeded(prepared, model_hash):
    def jitter(inputs, generator):
        return (inputs[0] + torch.randn(inputs[0].shape, generator=generator),)

    augmented = _with(prepared, augment=jitter)
    plain, first, again = (model_hash(_tune(p)[0]) for p in (prepared, augmented, augmented))
    assert first == again != plain


def test_loss_that_is_not_a_number_fails_the_trial(prepared):
    def loss(outputs, targets):
        return outputs.mean() * (float("nan") if outputs.requires_grad else 1.0)

    recipe = Recipe(epochs=1, learning_rate=0.05, batch_size=16, distill="none")
    with pytest.raises(TrialError, match=r"The loss became nan in step 1 of 6\.") as caught:
        _tune(_with(prepared, loss=loss), recipe)
    assert caught.value.reason == "nonfinite_loss"


def test_schedule_warms_up_and_falls_to_zero():
    shares = [_schedule(step, 2000) for step in range(2000)]
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
    assert all(0.0 < _schedule(step, n_steps) <= 1.0 for step in range(n_steps))
    assert _schedule(0, n_steps) == 1.0


def test_weight_decay_is_on_weights_only(prepared):
    model = copy.deepcopy(prepared.task.model)
    quantize_(model, "0", 4, 8)
    model[3].bias.requires_grad_(False)
    decayed, kept = _parameter_groups(model)
    assert (decayed["weight_decay"], kept["weight_decay"]) == (1e-4, 0.0)
    assert {id(p) for p in decayed["params"]} == {id(model[0].weight), id(model[3].weight)}
    free = (
        model[0].bias,
        model[1].weight,
        model[1].bias,
        model[0].weight_quantizer.step,
        model[0].input_quantizer.step,
    )
    assert {id(p) for p in kept["params"]} == {id(p) for p in free}
