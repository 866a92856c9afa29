import functools
import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from autocompress.errors import InputError
from autocompress.tasks.base import Task
from autocompress.tasks.prepare import prepare_task
from autocompress.tasks.user_code import (
    Place,
    describe_error,
    is_users,
    naming_user_code,
    place_of,
    place_of_error,
    place_of_field,
)

CODE = """
import torch
from torch import nn
from autocompress import Task

class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, i):
        return self.table[i]  # ROWS

class Net(nn.Module):
    def forward(self, x):
        return x.no_such()  # FORWARD

def metric(outputs, targets):
    return outputs.no_such()  # METRIC

def task(model, **given):
    return Task(
        model=model,
        metric=metric,  # FIELD
        **given,
    )
"""
PAIR = (torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64))


@pytest.fixture
def users(tmp_path, monkeypatch):
    """A module of the user's."""
    path = tmp_path / "users.py"
    path.write_text(CODE)
    spec = importlib.util.spec_from_file_location("users", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "users", module)
    spec.loader.exec_module(module)
    return module


def place(module, text):
    lines = Path(module.__file__).read_text().splitlines()
    return Place(module.__file__, 1 + next(i for i, line in enumerate(lines) if text in line))


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda users: Task(model=users.Net(), train=PAIR), "# FORWARD"),
        (lambda users: Task(model=nn.Linear(2, 3), train=users.Rows()), "# ROWS"),
        (lambda users: users.task(nn.Linear(2, 3), train=PAIR, loss=users.metric), "# METRIC"),
    ],
)
def test_naming_user_code_adds_the_line_that_raised(users, make, where):
    with pytest.raises(InputError) as plain:
        prepare_task(make(users))
    with pytest.raises(InputError) as named, naming_user_code():
        prepare_task(make(users))

    assert named.value.message == f"{plain.value.message.rstrip('.')} ({place(users, where)})."
    assert named.value.hint == plain.value.hint


def test_naming_user_code_leaves_other_errors_as_they_are():
    with pytest.raises(InputError, match=r"^plain\.$"), naming_user_code():
        raise InputError("plain.")
    with pytest.raises(KeyError), naming_user_code():
        raise KeyError("x")


def test_place_of_error_is_the_users_line_and_not_a_library_s(users):
    def careless(x):
        return torch.nn.functional.linear(x, torch.zeros(3, 3))

    with pytest.raises(RuntimeError) as caught:
        careless(torch.zeros(2))

    assert place_of_error(caught.value).file == __file__
    assert place_of_error(caught.value).line == careless.__code__.co_firstlineno + 1
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads("{")
    assert place_of_error(caught.value, __file__).file == __file__
    assert describe_error(ValueError("two\nlines")) == "ValueError: two"


def test_place_of_finds_what_the_user_wrote(users):
    assert place_of(users.Net()) == place(users, "def forward")
    assert place_of(functools.partial(users.metric, targets=1)) == place(users, "def metric")
    assert place_of(users.Rows()) == place(users, "class Rows")
    assert place_of(nn.Linear(2, 3)) is None
    assert place_of(torch.nn.functional.cross_entropy) is None
    assert place_of(len) is None


def test_place_of_field_is_the_line_in_the_call(users):
    factory = place(users, "def task")

    assert place_of_field(factory, "metric") == place(users, "# FIELD")
    assert place_of_field(factory, "loss") is None
    assert place_of_field(Place("nowhere.py", 1), "metric") is None


def test_place_of_field_looks_at_no_other_factory(tmp_path):
    path = tmp_path / "two.py"
    path.write_text(
        "def first():\n    return Task(model=1, val=2)\n\n"
        "@cached\ndef second():\n    return Task(\n        val=3)\n\n"
        "third = lambda: autocompress.Task(model=4)\n"
    )

    assert place_of_field(Place(str(path), 1), "val") == Place(str(path), 2)
    assert place_of_field(Place(str(path), 4), "val") == Place(str(path), 7)
    assert place_of_field(Place(str(path), 4), "model") is None
    assert place_of_field(Place(str(path), 9), "model") == Place(str(path), 9)
    assert place_of_field(Place(str(path), 3), "val") is None


def test_is_users_tells_whose_a_file_is():
    assert is_users(__file__)
    assert not is_users(torch.__file__)
    assert not is_users(json.__file__)
    assert not is_users("<string>")
    assert not is_users(prepare_task.__code__.co_filename)


def test_is_users_compares_whole_names_of_folders():
    package = Path(prepare_task.__code__.co_filename).parents[1]

    assert is_users(f"{package}_tasks/mine.py")
    assert is_users(f"{Path(json.__file__).parents[1]}x/mine.py")
