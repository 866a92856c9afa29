import dataclasses

import pytest
import torch
from torch import nn

from autocompress.errors import InputError
from autocompress.tasks.base import Task
from autocompress.tasks.prepare import prepare_task
from autocompress.train.recipe import Recipe, check_recipe

RECIPE = Recipe(epochs=1, learning_rate=0.1, batch_size=4)


def _prepared(**changes):
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    data = (torch.randn(8, 4), torch.arange(8) % 3)
    return prepare_task(Task(**{"model": model, "train": data, "val": data, **changes}))


@pytest.mark.parametrize(
    ("field", "value", "must"),
    [
        ("epochs", 0, "> 0"),
        ("epochs", float("nan"), "> 0"),
        ("learning_rate", -0.1, "> 0"),
        ("learning_rate", float("inf"), "> 0"),
        ("temperature", 0.0, "> 0"),
        ("batch_size", 0, "a whole number >= 1"),
        ("batch_size", 2.5, "a whole number >= 1"),
        ("prune_steps", 0, "a whole number >= 1"),
        ("prune_steps", True, "a whole number >= 1"),
        ("task_share", 1.1, "in [0, 1]"),
        ("task_share", float("nan"), "in [0, 1]"),
        ("penalty_strength", -1e-9, ">= 0"),
        ("feature_weight", -1.0, ">= 0"),
        ("feature_weight", float("inf"), ">= 0"),
    ],
)
def test_recipe_refuses_numbers_outside_their_range(field, value, must):
    with pytest.raises(InputError) as caught:
        dataclasses.replace(RECIPE, **{field: value})
    assert caught.value.message == (f"`{field}` of the recipe must be {must}, but got {value!r}.")


@pytest.mark.parametrize("field", ["epochs", "task_share", "batch_size", "feature_weight"])
def test_recipe_refuses_what_is_no_number(field):
    with pytest.raises(InputError, match=f"`{field}` of the recipe must be .*, but got '3'"):
        dataclasses.replace(RECIPE, **{field: "3"})


def test_recipe_refuses_a_switch_that_is_neither_on_nor_off():
    with pytest.raises(InputError, match="`rewind` of the recipe must be true or false"):
        dataclasses.replace(RECIPE, rewind="no")


@pytest.mark.parametrize(
    ("field", "name", "meant"),
    [
        ("distill", "kld", "kl"),
        ("features", "similar", "similarity"),
        ("penalty", "grouplasso", "group_lasso"),
        ("rounding", "compensate", "compensated"),
    ],
)
def test_recipe_refuses_unknown_names_and_guesses_the_one_meant(field, name, meant):
    with pytest.raises(InputError) as caught:
        dataclasses.replace(RECIPE, **{field: name})
    assert caught.value.message == f"Unknown {field} of the recipe {name!r}."
    assert f"Did you mean {meant!r}?" in caught.value.hint


def test_recipe_takes_the_ends_of_its_ranges():
    recipe = dataclasses.replace(
        RECIPE, epochs=0.01, task_share=0.0, penalty_strength=0.0, feature_weight=0.0
    )
    assert dataclasses.replace(recipe, task_share=1.0).task_share == 1.0


def test_a_recipe_that_asks_for_nothing_fits_any_task():
    check_recipe(RECIPE, _prepared())
    check_recipe(RECIPE, _prepared(teacher=nn.Linear(4, 3), unlabelled=torch.randn(3, 4)))


def test_features_are_refused_with_another_teacher():
    recipe = dataclasses.replace(RECIPE, features="similarity")
    check_recipe(recipe, _prepared())
    with pytest.raises(InputError, match=r"features='similarity' .* names another teacher"):
        check_recipe(recipe, _prepared(teacher=nn.Linear(4, 3)))


def test_features_are_refused_where_the_model_has_none():
    recipe = dataclasses.replace(RECIPE, features="attention")
    with pytest.raises(InputError, match="model has no activations of 2 or more positions"):
        check_recipe(recipe, _prepared())


def test_unlabelled_inputs_are_refused_without_distillation():
    recipe = dataclasses.replace(RECIPE, distill="none")
    check_recipe(recipe, _prepared())
    with pytest.raises(InputError, match="only distillation can learn, but the recipe's"):
        check_recipe(recipe, _prepared(unlabelled=torch.randn(3, 4)))


def test_rewinding_needs_early_weights():
    recipe, prepared = dataclasses.replace(RECIPE, rewind=True), _prepared()
    with pytest.raises(InputError, match=r"Give Task\.initial_state"):
        check_recipe(recipe, prepared)
    state = {name: p.detach() for name, p in prepared.task.model.named_parameters()}
    task = dataclasses.replace(prepared.task, initial_state=state)
    check_recipe(recipe, dataclasses.replace(prepared, task=task))
