import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from autocompress.tasks.base import Task, TensorData
from autocompress.tasks.prepare import prepare_task
from autocompress.train import teachers
from autocompress.train.distill import soft_label_loss
from autocompress.train.recipe import Recipe
from autocompress.train.teachers import Ensemble, make_teacher, mean_logits, outputs_on

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=1, learning_rate=0.1, batch_size=4)


def _prepared(**changes):
    data = TensorData((torch.randn(9, 4),), torch.arange(9) % 3, lambda x: (x[0] * 2,))
    return prepare_task(Task(**{"model": nn.Linear(4, 3), "train": data, "val": data, **changes}))


def _teacher(prepared, recipe=RECIPE):
    return make_teacher(prepared, prepared.task.model, recipe, device=CPU, precision="fp32")


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_mean_logits_have_the_mean_of_the_softened_probabilities(temperature):
    logits = torch.randn(3, 5, 4, 2) * 5
    mean = F.softmax(mean_logits(logits, temperature) / temperature, dim=1)
    torch.testing.assert_close(mean, F.softmax(logits / temperature, dim=2).mean(0))


def test_mean_logits_by_hand():
    # softmax gives (3/4, 1/4) and (1/4, 3/4): the mean is (1/2, 1/2)
    logits = torch.tensor([[[3.0, 1.0]], [[1.0, 3.0]]]).log()
    assert mean_logits(logits, 1.0).exp().tolist() == [pytest.approx([0.5, 0.5])]
    # at T = 2: sqrt(3) : 1, once each way round
    assert mean_logits(logits, 2.0).exp().tolist() == [pytest.approx([0.25, 0.25])]


def test_mean_logits_stand_probabilities_that_underflow():
    logits = torch.tensor([[[0.0, -500.0]], [[0.0, -600.0]]])
    mean = mean_logits(logits, 1.0)
    assert mean[0, 1].item() == pytest.approx(-500.0 - torch.tensor(2.0).log().item())


def test_learning_from_an_ensemble_is_learning_from_the_mean_probabilities():
    models = tuple(nn.Linear(4, 3) for _ in range(3))
    x, student, temperature = torch.randn(6, 4), torch.randn(6, 3), 3.0
    loss = soft_label_loss(student, Ensemble(models, temperature)(x), temperature)
    q = torch.stack([F.softmax(m(x) / temperature, dim=1) for m in models]).mean(0)
    p = F.softmax(student / temperature, dim=1)
    expected = (q * (q / p).log()).sum(1).mean() * temperature**2
    torch.testing.assert_close(loss, expected)


def test_an_ensemble_without_temperature_averages_outputs():
    models = tuple(nn.Linear(4, 3) for _ in range(3))
    x = torch.randn(6, 4)
    expected = sum(model(x) for model in models) / 3
    torch.testing.assert_close(Ensemble(models, None)(x), expected)


def test_the_base_model_teaches_where_nobody_else_is_named():
    prepared = _prepared()
    teacher = _teacher(prepared)
    x = torch.randn(2, 4)
    assert teacher.model is not prepared.task.model
    assert torch.equal(teacher.model(x), prepared.task.model(x))
    assert not any(p.requires_grad for p in teacher.model.parameters())
    assert all(p.requires_grad for p in prepared.task.model.parameters())


def test_a_named_teacher_teaches_in_eval_mode():
    named = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3)).train()
    teacher = _teacher(_prepared(teacher=named))
    x = torch.randn(2, 4)
    assert not any(module.training for module in teacher.model.modules())
    assert named.training
    assert torch.equal(teacher.model(x), copy.deepcopy(named).eval()(x))


@pytest.mark.parametrize(("distill", "temperature"), [("kl", 5.0), ("mse", None)])
def test_several_teachers_are_averaged_as_the_recipe_distills(distill, temperature):
    named = (nn.Linear(4, 3), nn.Linear(4, 3))
    recipe = dataclasses.replace(RECIPE, distill=distill, temperature=5.0)
    teacher = _teacher(_prepared(teacher=named, distill=distill), recipe)
    x = torch.randn(2, 4)
    torch.testing.assert_close(teacher.model(x), Ensemble(named, temperature)(x))


def test_outputs_are_cached_for_all_examples_the_unlabelled_last():
    prepared = _prepared(unlabelled=torch.randn(5, 4))
    cached = _teacher(prepared).cached
    inputs = torch.cat([prepared.train.inputs[0], prepared.unlabelled[0]]) * 2
    torch.testing.assert_close(cached, prepared.task.model(inputs).detach())


def test_outputs_are_not_cached_where_they_change_or_nobody_needs_them():
    assert _teacher(_prepared(augment=lambda inputs, generator: inputs)).cached is None
    assert _teacher(_prepared(), dataclasses.replace(RECIPE, distill="none")).cached is None
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    recipe = dataclasses.replace(RECIPE, features="similarity")
    assert _teacher(_prepared(model=model), recipe).cached is None


def test_outputs_are_those_of_the_whole_set_in_order():
    model, x = nn.Linear(4, 3), torch.randn(1100, 4)  # three batches
    got = outputs_on(model, TensorData((x,), torch.zeros(1100)), CPU, "fp32")
    torch.testing.assert_close(got, model(x).detach())
    assert not got.requires_grad


def test_outputs_that_would_fill_the_memory_are_not_kept(monkeypatch):
    assert _teacher(_prepared()).cached is not None
    monkeypatch.setattr(teachers, "_MOST_CACHED", 100)
    assert _teacher(_prepared()).cached is None


def test_outputs_are_the_same_however_few_are_computed_at_once(monkeypatch):
    prepared = _prepared()
    sizes = []
    model = nn.Linear(4, 3)
    model.register_forward_hook(lambda module, args, output: sizes.append(len(output)))
    (inputs,), _ = prepared.train.batch(slice(None))
    want = model(inputs)
    monkeypatch.setattr(teachers, "_MOST_AT_ONCE", 5 * 3 * 4)
    got = teachers.outputs_on(model, prepared.train, torch.device("cpu"), "fp32")
    torch.testing.assert_close(got, want)
    assert set(sizes[2:-1]) == {5}
