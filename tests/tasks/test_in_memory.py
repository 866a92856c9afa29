import pytest
import torch
from torch import nn

from autocompress.errors import InputError
from autocompress.tasks import in_memory
from autocompress.tasks.base import Task
from autocompress.tasks.factory import load_task
from autocompress.tasks.in_memory import is_in_memory, keep_in_memory
from autocompress.tasks.trust import is_trusted


@pytest.fixture(autouse=True)
def _own_memory(monkeypatch):
    monkeypatch.setattr(in_memory, "_tasks", {})


def small_task(weight=0.0):
    model = nn.Linear(2, 3)
    nn.init.constant_(model.weight, weight)
    nn.init.zeros_(model.bias)
    return Task(model=model, train=(torch.zeros(4, 2), torch.zeros(4).long()), name="small")


def test_keep_in_memory_makes_a_spec_that_load_task_knows():
    task = small_task()
    spec = keep_in_memory(task)

    assert spec.startswith("memory:small@")
    assert is_in_memory(spec)
    assert load_task(spec, {}) is task
    assert is_trusted(spec, {})
    assert keep_in_memory(small_task()) == spec  # an equal model: the same run goes on
    assert keep_in_memory(small_task(1.0)) != spec


def lazy_task(**fields):
    model = nn.Sequential(nn.LazyLinear(4), nn.LazyBatchNorm1d(), nn.Linear(4, 3))
    nn.init.zeros_(model[2].weight)
    nn.init.zeros_(model[2].bias)
    data = (torch.rand(20, 2), torch.zeros(20).long())
    return Task(model=model, train=data, name="lazy", **fields)


@pytest.mark.parametrize("fields", [{}, {"frozen": ["2"]}])
def test_keep_in_memory_gives_lazy_layers_the_same_weights_each_time(fields):
    task, state = lazy_task(**fields), torch.random.get_rng_state()
    spec = keep_in_memory(task)

    assert torch.equal(torch.random.get_rng_state(), state)
    assert task.model[0].weight.shape == (4, 2)
    assert keep_in_memory(task) == spec
    torch.manual_seed(7)
    other = lazy_task(**fields)
    keep_in_memory(other, spec)  # as when a run is opened again
    assert torch.equal(other.model[0].weight, task.model[0].weight)


def test_keep_in_memory_refuses_what_gets_no_weights(monkeypatch):
    with pytest.raises(InputError, match=r"`Task.model` must be a torch.nn.Module, but got NoneT"):
        keep_in_memory(Task(model=None, train=small_task().train))
    with pytest.raises(InputError, match="The model must run on a batch"):
        keep_in_memory(Task(model=nn.LazyConv2d(3, 3), train=small_task().train))
    monkeypatch.setattr(in_memory, "prepare_task", lambda task: None)
    with pytest.raises(InputError, match=r"but '0\.weight' waits for a first batch"):
        keep_in_memory(lazy_task())


def test_load_task_of_another_process_says_what_to_do():
    with pytest.raises(InputError, match="'small@0123' existed only in the memory") as caught:
        load_task("memory:small@0123", {})
    assert "open_run" in caught.value.hint


def test_is_in_memory_is_no_file_and_no_name():
    assert not is_in_memory("digits")
    assert not is_in_memory("/tmp/memory.py:task")
