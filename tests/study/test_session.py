import importlib.metadata
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from autocompress.environment import processor_name
from autocompress.errors import InputError
from autocompress.evaluate.settings import EvaluationSettings
from autocompress.space.rules import RecipeSettings, Rule, SpaceRules
from autocompress.study.session import Session, comparable, open_session
from autocompress.tasks.base import Task
from autocompress.train.presets import parse_proxy
from tests.builders import make_measurement, make_run


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


def open_judged_by(metric: Callable[[Tensor, Tensor], float]) -> Session:
    torch.manual_seed(0)
    x = torch.randn(200, 4)
    y = (x[:, 0] > 0).long().sort().values
    task = Task(
        model=nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)),
        train=(x, y),
        val=(x, y),
        metric=metric,
    )
    rules = SpaceRules(rules=[Rule(weight_bits=[8, 4])])
    return open_session(task, rules, EvaluationSettings(threads=1, has_latency=False))


def test_a_metric_that_needs_many_examples_is_judged_on_all_of_val() -> None:
    asked = []

    def metric(outputs: Tensor, targets: Tensor) -> float:
        asked.append(len(targets))
        return math.nan if len(targets) < 200 else 0.5

    assert open_judged_by(metric).prepared.task.metric is metric
    assert asked[1] == 200


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda outputs, targets: math.nan, "must lie in [0, 1], but returned nan for a whole"),
        (lambda outputs, targets: 93.0, "must lie in [0, 1], but returned 93.0 for a whole split"),
        (lambda outputs: 1.0, "must give a number for a whole split, but raised TypeError"),
        (lambda outputs, targets: None, "must give a number for a whole split, but raised"),
    ],
)
def test_a_metric_that_cannot_judge_val_is_refused_before_a_study_exists(
    wrong: Callable[[Tensor, Tensor], float], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        open_judged_by(wrong)
    assert caught.value.message.startswith(f"`Task.metric` {message}")
    assert caught.value.hint == "It is called once with outputs and targets of all 200 examples."


def test_a_model_that_does_not_run_on_val_is_refused() -> None:
    x, y = torch.randn(64, 4), torch.zeros(64, dtype=torch.int64)
    task = Task(model=nn.Linear(4, 2), train=(x, y), val=(x[:, :3], y))
    rules = SpaceRules(rules=[Rule(weight_bits=[8, 4])])
    with pytest.raises(InputError, match="must run on a batch of val, but raised RuntimeError"):
        open_session(task, rules, EvaluationSettings(threads=1, has_latency=False))


def test_times_of_another_processor_do_not_stand_beside_a_runs() -> None:
    timed = make_measurement(
        latency_ms=1.0, latency_spread_ms=0.1, baseline_latency_ms=2.0, latency_low_ms=0.9
    )
    here = make_run(info={"machine": {"processor": processor_name()}})
    assert comparable(here, timed) is timed
    assert comparable(make_run(), timed) is timed, "version 0.1 did not say"
    elsewhere = comparable(make_run(info={"machine": {"processor": "Abacus 1"}}), timed)
    assert elsewhere.latency_ms is None
    assert elsewhere.baseline_latency_ms is None
    assert elsewhere.speedup is None
    assert elsewhere.accuracy == timed.accuracy
    assert "the run was timed on Abacus 1" in elsewhere.skipped[-1]


@pytest.mark.parametrize("package", ["onnxruntime", "torch"])
def test_times_of_another_version_do_not_stand_beside_a_runs(package: str) -> None:
    timed = make_measurement(latency_ms=1.0, latency_spread_ms=0.1, baseline_latency_ms=2.0)
    now = importlib.metadata.version(package)
    machine = {"processor": processor_name(), "precision": "fp32", package: now}
    assert comparable(make_run(info={"machine": machine}), timed) is timed
    older = comparable(make_run(info={"machine": {**machine, package: "1.2"}}), timed)
    assert older.latency_ms is None
    assert f"the run was timed with {package} 1.2, this is {now}" in older.skipped[-1]
