import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F

from autocompress.errors import InputError
from autocompress.tasks.base import Task, TensorData
from autocompress.tasks.prepare import PreparedTask
from autocompress.train.channel_weights import channel_rows
from autocompress.train.distill import soft_label_loss
from autocompress.train.features import similarity_loss
from autocompress.train.loop import finetune_
from autocompress.train.precision import fastest_precision, to_fast_layout_
from autocompress.train.recipe import Recipe
from autocompress.train.regularize import group_lasso, l1_penalty, squared_l2_norm
from autocompress.train.teachers import Teacher, make_teacher

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=2, learning_rate=0.05, batch_size=16)
LONG = {"epochs": 10, "learning_rate": 0.05, "batch_size": 16}


@pytest.mark.parametrize("change", [{"temperature": 1.0}, {"task_share": 0.9}])
def test_settings_of_distillation_change_what_is_learned(prepared, model_hash, change, tune):
    plain, changed = (
        model_hash(tune(prepared, dataclasses.replace(RECIPE, **c))[0]) for c in ({}, change)
    )
    assert plain != changed


def test_a_task_share_of_one_learns_from_labels_alone(prepared, model_hash, tune):
    shared = dataclasses.replace(RECIPE, task_share=1.0)
    alone = dataclasses.replace(RECIPE, distill="none")
    for a, b in zip(*(tune(prepared, r)[0].parameters() for r in (shared, alone)), strict=True):
        torch.testing.assert_close(a, b)


def test_a_candidate_comes_to_agree_with_an_ensemble(prepared, tune, changed):
    teachers = tuple(tune(prepared, RECIPE, seed=seed)[0] for seed in (1, 2))
    taught = changed(teacher=teachers)
    recipe = Recipe(epochs=20, learning_rate=0.05, batch_size=16, task_share=0.0)
    teacher = make_teacher(taught, taught.task.model, recipe, device=CPU, precision="fp32")
    model = copy.deepcopy(prepared.task.model)
    inputs, _ = prepared.train.batch(slice(None))

    def distance():
        with torch.no_grad():
            return soft_label_loss(model.eval()(*inputs), teacher.model(*inputs)).item()

    before = distance()
    finetune_(model, taught, teacher, recipe, seed=0, device=CPU, precision="fp32")
    assert distance() < 0.1 * before


def test_an_ensemble_made_for_another_temperature_is_refused(prepared, changed):
    taught = changed(teacher=(prepared.task.model, prepared.task.model))
    teacher = make_teacher(taught, taught.task.model, RECIPE, device=CPU, precision="fp32")
    recipe, model = dataclasses.replace(RECIPE, temperature=9.0), copy.deepcopy(taught.task.model)
    with pytest.raises(AssertionError):
        finetune_(model, taught, teacher, recipe, seed=0, device=CPU, precision="fp32")


@pytest.fixture(scope="module")
def half_labelled(prepared, tune, changed):
    """Labels for classes 0 to 2 only, a teacher that knows all five, and the rest unlabelled."""
    recipe = Recipe(epochs=20, learning_rate=0.05, batch_size=16, distill="none")
    teacher, _ = tune(prepared, recipe)
    inputs, targets = prepared.train.inputs[0], prepared.train.targets
    known = targets < 3
    return changed(
        train=(inputs[known], targets[known]),
        teacher=teacher,
        unlabelled=inputs[~known],
    )


@pytest.mark.parametrize("is_cached", [True, False])
def test_unlabelled_examples_teach_what_labels_do_not(prepared, half_labelled, is_cached):
    inputs, targets = prepared.train.batch(slice(None))
    recipe = Recipe(epochs=30, learning_rate=0.05, batch_size=16)
    accuracies = []
    for task in (half_labelled, dataclasses.replace(half_labelled, unlabelled=None)):
        model = copy.deepcopy(prepared.task.model)
        teacher = make_teacher(task, model, recipe, device=CPU, precision="fp32")
        if not is_cached:
            teacher = dataclasses.replace(teacher, cached=None)
        finetune_(model, task, teacher, recipe, seed=0, device=CPU, precision="fp32")
        with torch.no_grad():
            hits = (model(*inputs).argmax(1) == targets)[targets >= 3]
        accuracies.append(hits.double().mean().item())
    assert accuracies[0] > 0.9
    assert accuracies[0] > accuracies[1] + 0.2


def test_unlabelled_examples_count_as_images(half_labelled):
    teacher = Teacher(model=half_labelled.task.model, cached=None)
    model = copy.deepcopy(half_labelled.task.model)
    cost = finetune_(model, half_labelled, teacher, RECIPE, seed=0, device=CPU, precision="fp32")
    assert cost.n_images == 2 * (100 // 16) * 16


def test_a_batch_without_any_label_is_learned_from(prepared, changed):
    inputs, targets = prepared.train.inputs[0], prepared.train.targets
    few = changed(train=(inputs[:2], targets[:2]), unlabelled=inputs)
    model = copy.deepcopy(prepared.task.model)
    teacher = Teacher(model=copy.deepcopy(model).eval(), cached=None)
    cost = finetune_(model, few, teacher, RECIPE, seed=0, device=CPU, precision="fp32")
    assert cost.n_images == 2 * 96
    assert all(bool(p.isfinite().all()) for p in model.parameters())


def test_unlabelled_examples_need_distillation(half_labelled, tune):
    recipe = dataclasses.replace(RECIPE, distill="none")
    with pytest.raises(InputError, match="only distillation can learn"):
        tune(half_labelled, recipe)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("distill", ["kl", "none"])
def test_matching_features_brings_them_together(prepared, precision, distill):
    start = copy.deepcopy(prepared.task.model)
    with torch.no_grad():
        for parameter in start.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    inputs, _ = prepared.train.batch(slice(None))
    distances = []
    for features in ("none", "similarity"):
        recipe = Recipe(
            epochs=10,
            learning_rate=0.05,
            batch_size=16,
            distill=distill,
            features=features,
            feature_weight=100.0,
        )
        model, teacher = copy.deepcopy(start), copy.deepcopy(prepared.task.model).eval()
        finetune_(
            model,
            prepared,
            Teacher(model=teacher, cached=None),
            recipe,
            seed=0,
            device=CPU,
            precision=precision,
        )
        with torch.no_grad():
            inside = [net[:3](*inputs) for net in (model, teacher)]
        distances.append(similarity_loss(*inside).item())
        assert not any(m._forward_hooks for net in (model, teacher) for m in net.modules())
    assert distances[1] < 0.7 * distances[0]


@pytest.mark.parametrize(
    ("penalty", "norm"), [("l1", l1_penalty), ("l2", squared_l2_norm), ("group_lasso", group_lasso)]
)
def test_a_penalty_lowers_the_norm_it_targets(prepared, penalty, norm, tune):
    norms = [
        norm(tune(prepared, Recipe(**LONG, penalty=kind, penalty_strength=0.01))[0]).item()
        for kind in ("none", penalty)
    ]
    assert norms[1] < 0.8 * norms[0]


def test_hard_concrete_gates_close_channels_and_stay_in_the_weights(prepared, tune):
    def closed(strength):
        recipe = Recipe(**LONG, penalty="l0", penalty_strength=strength)
        model, _ = tune(prepared, recipe)
        assert not any(module._forward_hooks for module in model.modules())
        rows = channel_rows(model[0], "weight", model[0].weight)
        return int((rows == 0).all(dim=1).sum())

    assert closed(0.0) == 0
    assert closed(1e-3) > 0


def test_a_penalty_of_no_strength_leaves_training_as_it_was(prepared, model_hash, tune):
    plain, penalized = (
        model_hash(tune(prepared, Recipe(**LONG, penalty=kind, penalty_strength=0.0))[0])
        for kind in ("none", "l1")
    )
    assert plain == penalized


@pytest.mark.parametrize("penalty", ["l1", "group_lasso", "l0"])
def test_training_with_a_penalty_is_the_same_for_a_seed(prepared, model_hash, penalty, tune):
    recipe = dataclasses.replace(RECIPE, penalty=penalty)
    hashes = [model_hash(tune(prepared, recipe, seed=seed)[0]) for seed in (1, 1, 2)]
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize("precision", sorted({"fp32", fastest_precision(CPU)}))
def test_nets_of_all_kinds_take_one_step_with_features_and_gates(zoo_net, precision):
    model = to_fast_layout_(copy.deepcopy(zoo_net.model), CPU)
    base = to_fast_layout_(copy.deepcopy(zoo_net.model), CPU)
    with torch.no_grad():
        targets = base(*zoo_net.inputs)
    data = TensorData(zoo_net.inputs, targets)
    task = Task(model=zoo_net.model, train=data, loss=F.mse_loss, distill="mse")
    prepared = PreparedTask(task=task, train=data, val=data, test=None, is_val_carved=False)
    recipe = Recipe(
        epochs=1,
        learning_rate=0.01,
        batch_size=4,
        distill="mse",
        features="attention" if zoo_net.inputs[0].ndim > 2 else "similarity",
        penalty="l0",
    )
    teacher = Teacher(model=base, cached=None)
    cost = finetune_(model, prepared, teacher, recipe, seed=0, device=CPU, precision=precision)
    assert cost.n_images == 4
    assert all(bool(p.isfinite().all()) for p in model.parameters())
    assert not any(m._forward_hooks for net in (model, base) for m in net.modules())
