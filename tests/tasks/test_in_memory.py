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


def test_load_task_of_another_process_says_what_to_do():
    with pytest.raises(InputError, match="'small@0123' existed only in the memory") as caught:
        load_task("memory:small@0123", {})
    assert "open_run" in caught.value.hint


def test_is_in_memory_is_no_file_and_no_name():
    assert not is_in_memory("digits")
    assert not is_in_memory("/tmp/memory.py:task")
