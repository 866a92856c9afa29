import dataclasses

import pytest
import torch
from torch import nn

from autocompress.errors import InputError
from autocompress.tasks.base import Task
from autocompress.train.presets import PRESETS, Proxy, parse_proxy, parse_recipe
from autocompress.train.recipe import Recipe


@pytest.fixture
def task() -> Task:
    data = (torch.randn(8, 4), torch.tensor([0, 1] * 4))
    return Task(model=nn.Linear(4, 2), train=data, val=data, proxy_epochs=3.0)


@pytest.mark.parametrize(
    ("text", "epochs", "fidelity"),
    [("quick", 0.75, 1), ("standard", None, 1), ("thorough", 12.0, 1), ("none", None, 0)],
)
def test_presets_scale_the_tasks_epochs(
    task: Task, text: str, epochs: float | None, fidelity: int
) -> None:
    proxy = parse_proxy(text)
    assert proxy.fidelity == fidelity
    assert proxy.settings(task) == {"proxy_epochs": epochs, "learning_rate": None, "recipe": {}}


def test_every_preset_but_the_one_without_tuning_has_a_factor() -> None:
    assert [name for name, factor in PRESETS.items() if factor is None] == ["none"]
    assert PRESETS["standard"] == 1.0
    assert PRESETS["quick"] < 1.0 < PRESETS["thorough"]  # type: ignore[operator]


def test_parse_proxy_reads_every_field_of_the_recipe_in_its_type(task: Task) -> None:
    wanted = {
        "epochs": 0.5, "learning_rate": 0.001, "batch_size": 16, "distill": "mse",
        "temperature": 3.0, "task_share": 0.25, "features": "attention", "feature_weight": 2.0,
        "penalty": "l1", "penalty_strength": 0.5, "entropy_strength": 0.1,
        "prune_steps": 2, "rewind": True, "rounding": "compensated",
    }  # fmt: skip
    assert set(wanted) == {field.name for field in dataclasses.fields(Recipe)}
    proxy = parse_proxy(", ".join(f"{name} = {value}" for name, value in wanted.items()))
    settings = proxy.settings(task)

    assert settings.pop("proxy_epochs") == 0.5
    assert settings.pop("learning_rate") == 0.001
    for name, value in settings["recipe"].items():
        assert value == wanted[name]
        assert type(value) is type(wanted[name])
    assert len(settings["recipe"]) == len(wanted) - 2


def test_explicit_settings_win_over_the_preset(task: Task) -> None:
    both = parse_proxy("learning_rate=0.001,quick")
    assert both == Proxy(preset="quick", fields={"learning_rate": 0.001})
    assert both.settings(task)["proxy_epochs"] == 0.75
    assert parse_proxy("quick,epochs=2").settings(task)["proxy_epochs"] == 2.0
    assert parse_proxy("none,rounding=compensated").settings(task)["recipe"] == {
        "rounding": "compensated"
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("quik", "Unknown preset of `proxy` 'quik'. Did you mean 'quick'?"),
        ("", "Unknown preset of `proxy` ''. Choose from: none, quick, standard, thorough."),
        ("quick,none", "must name one preset, but got quick and none"),
        ("learnig_rate=1", "Unknown setting of proxy 'learnig_rate'. Did you mean 'learning_rat"),
        ("epochs=x", "`epochs` of `proxy` must be a number, but got 'x'"),
        ("epochs=-1", "`epochs` of the recipe must be > 0, but got -1.0"),
        ("epochs=nan", "must be > 0, but got nan"),
        ("prune_steps=2.5", "`prune_steps` of `proxy` must be a whole number, but got '2.5'"),
        ("rewind=maybe", "`rewind` of `proxy` must be true or false, but got 'maybe'"),
        ("distill=lk", "Unknown distill of the recipe 'lk'. Did you mean 'kl'?"),
        ("epochs=1,epochs=2", "must set each field once, but 'epochs' came twice"),
        ("none,epochs=2", "`proxy=none` trains nothing, but 'epochs' was set"),
        ("none,learning_rate=2", "`proxy=none` trains nothing, but 'learning_rate' was set"),
    ],
)
def test_parse_proxy_refuses_what_is_no_recipe(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_proxy(text)
    assert message in str(caught.value)


def test_parse_recipe_reads_settings_of_every_type() -> None:
    assert parse_recipe("") == {}
    assert parse_recipe("epochs=40, entropy_strength=0.5,batch_size=8,distill=mse,") == {
        "epochs": 40.0,
        "entropy_strength": 0.5,
        "batch_size": 8,
        "distill": "mse",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("quick", "Unknown setting of recipe 'quick'"),
        ("epoch=3", "Unknown setting of recipe 'epoch'. Did you mean 'epochs'?"),
        ("epochs=x", "`epochs` of `recipe` must be a number, but got 'x'"),
        ("epochs", "`epochs` of `recipe` must be a number, but got ''"),
        ("epochs=0", "`epochs` of the recipe must be > 0, but got 0.0"),
        ("entropy_strength=-1", "`entropy_strength` of the recipe must be >= 0, but got -1.0"),
        ("entropy_strength=inf", "`entropy_strength` of the recipe must be >= 0, but got inf"),
        ("epochs=1,epochs=2", "`recipe` must set each field once, but 'epochs' came twice"),
    ],
)
def test_parse_recipe_refuses_what_is_no_recipe(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_recipe(text)
    assert message in str(caught.value)


def test_parse_recipe_gives_an_example_with_its_own_option() -> None:
    with pytest.raises(InputError) as caught:
        parse_recipe("epochs=x")
    example = caught.value.hint.removeprefix("For example: `recipe=").rstrip("`.")
    assert parse_recipe(example) == {"epochs": 40.0, "entropy_strength": 0.5}
