import torch
from torch import nn

from autocompress.evaluate.settings import EvaluationSettings
from autocompress.search.session import Session, open_session
from autocompress.space.rules import RecipeSettings, Rule, SpaceRules
from autocompress.tasks.base import Task
from autocompress.train.presets import parse_proxy


def session_of(proxy: str) -> Session:
    """A task with its own recipe, a space that changes some of it, and a proxy that may as well."""
    torch.manual_seed(0)
    x = torch.randn(32, 4)
    y = (x[:, 0] > 0).long()
    task = Task(
        model=nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)),
        train=(x, y),
        val=(x, y),
        batch_size=8,
        learning_rate=0.5,
        proxy_epochs=2.0,
        distill="mse",
    )
    rules = SpaceRules(
        recipe=RecipeSettings(temperature=2.0, task_share=0.25), rules=[Rule(weight_bits=[8, 4])]
    )
    settings = EvaluationSettings(threads=1, **parse_proxy(proxy).settings(task))
    return open_session(task, rules, settings)


def test_recipe_is_the_tasks_then_the_spaces_then_the_proxys() -> None:
    plain = session_of("standard").evaluator.recipe
    assert (plain.epochs, plain.learning_rate, plain.batch_size, plain.distill) == (
        2.0,
        0.5,
        8,
        "mse",
    )
    assert (plain.temperature, plain.task_share) == (2.0, 0.25)

    recipe = session_of(
        "quick,temperature=5,distill=kl,batch_size=4,learning_rate=0.1"
    ).evaluator.recipe
    assert (recipe.epochs, recipe.learning_rate) == (0.5, 0.1)
    assert (recipe.batch_size, recipe.distill) == (4, "kl")
    assert (recipe.temperature, recipe.task_share) == (5.0, 0.25)


def test_identity_tells_proxies_apart() -> None:
    ids = [session_of(proxy).identity(run_seed=0, sampler="tpe") for proxy in ("quick", "thorough")]
    assert ids[0]["recipe"] != ids[1]["recipe"]
