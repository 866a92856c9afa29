"""A small task of five clusters, and a shorthand for tuning its model."""

import copy

import pytest
import torch
from torch import nn

from autocompress.tasks.base import Task
from autocompress.tasks.prepare import prepare_task
from autocompress.train.loop import finetune_
from autocompress.train.recipe import Recipe
from autocompress.train.teachers import Teacher

RECIPE = Recipe(epochs=2, learning_rate=0.05, batch_size=16)


@pytest.fixture(scope="session")
def prepared():
    torch.manual_seed(0)
    centres = torch.randn(5, 12) * 2
    targets = torch.arange(100) % 5
    inputs = centres[targets] + torch.randn(100, 12) * 0.3
    model = nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 5))
    return prepare_task(Task(model=model, train=(inputs, targets), val=(inputs, targets)))


@pytest.fixture(scope="session")
def changed(prepared):
    """The same task with other fields."""

    def change(**changes):
        task = prepared.task
        fields = {"model": task.model, "train": prepared.train, "val": prepared.val, **changes}
        return prepare_task(Task(**fields))

    return change


@pytest.fixture(scope="session")
def tune():
    """A tuned copy of a task's model, taught by the untuned one, and what that cost."""

    def tuned(
        prepared,
        recipe=RECIPE,
        *,
        seed=0,
        teacher=None,
        cached=None,
        on_step=None,
        precision="fp32",
    ):
        model = copy.deepcopy(prepared.task.model)
        if teacher is None:
            teacher = Teacher(model=copy.deepcopy(prepared.task.model).eval(), cached=cached)
        throughput = finetune_(
            model,
            prepared,
            teacher,
            recipe,
            seed=seed,
            device=torch.device("cpu"),
            precision=precision,
            on_step=on_step,
        )
        return model, throughput

    return tuned
