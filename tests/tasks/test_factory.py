import os
import random
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from autocompress.errors import InputError
from autocompress.tasks import factory
from autocompress.tasks.base import Task
from autocompress.tasks.factory import load_task, load_teacher

_HEAD = """
import torch
from torch import nn
from autocompress.tasks.base import Task

def make(n=4):
    return Task(model=nn.Linear(2, 3), train=(torch.zeros(n, 2), torch.zeros(n).long()))
"""


@pytest.fixture
def write(tmp_path):
    """A function that writes a module under `tmp_path` and returns its path."""

    def write_module(code, name="my_task.py", head=_HEAD):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(head + textwrap.dedent(code))
        return path

    return write_module


def _line_of(path, text):
    return 1 + next(i for i, line in enumerate(path.read_text().splitlines()) if text in line)


def _error(spec, arguments=None):
    with pytest.raises(InputError) as caught:
        load_task(str(spec), arguments or {})
    assert "\n" not in str(caught.value)
    return caught.value


def test_load_task_takes_function_task_of_a_file_by_default(write):
    path = write("def task():\n    return make(5)\n")

    task = load_task(str(path), {})

    assert isinstance(task, Task)
    assert len(task.train[1]) == 5


def test_load_task_takes_the_named_function_with_converted_arguments(write):
    path = write("def wide(*, n: int):\n    return make(n)\n")

    assert len(load_task(f"{path}:wide", {"n": "7"}).train[1]) == 7


def test_load_task_takes_a_relative_path(write, monkeypatch):
    path = write("def task():\n    return make()\n")
    monkeypatch.chdir(path.parent)

    assert isinstance(load_task("my_task.py", {}), Task)


def test_load_task_imports_from_a_package_in_the_current_folder(write, monkeypatch):
    write("", name="some_package_of_mine/__init__.py", head="")
    path = write("def build():\n    return make(6)\n", name="some_package_of_mine/tasks.py")
    monkeypatch.chdir(path.parent.parent)

    assert len(load_task("some_package_of_mine.tasks:build", {}).train[1]) == 6


def test_load_task_finds_tasks_of_the_table(write, monkeypatch):
    path = write("def task():\n    return make(9)\n")
    monkeypatch.setitem(factory.TASKS, "mine", f"{path}:task")

    assert len(load_task("mine", {}).train[1]) == 9


def test_load_task_lets_files_import_their_siblings_and_leaves_the_path_alone(write):
    write("N = 3\n", name="sibling_of_my_task.py", head="")
    code = "def task():\n    from sibling_of_my_task import N\n    return make(N)\n"
    before = list(sys.path)

    assert len(load_task(str(write(code)), {}).train[1]) == 3
    assert sys.path == before


def test_load_task_registers_the_module_so_that_dataclasses_work(write):
    code = """
        import dataclasses

        @dataclasses.dataclass(slots=True)
        class Size:
            n: int | None = 2

        class Net(nn.Linear):
            pass

        def task():
            return Task(model=Net(2, Size().n), train=make().train)
    """
    task = load_task(str(write(code, head="from __future__ import annotations\n" + _HEAD)), {})

    module = type(task.model).__module__
    assert sys.modules[module].Net is type(task.model)
    again = load_task(sys.modules[module].__file__, {})
    assert type(again.model).__module__ == module


def test_load_task_reads_a_changed_file_afresh(write):
    path = write("def task():\n    return make(1)\n")
    load_task(str(path), {})
    write("def task():\n    return make(22)\n")
    # The byte code cache goes by size and whole seconds of the modification time.
    os.utime(path, ns=(0, 10**18))

    assert len(load_task(str(path), {}).train[1]) == 22


def test_load_task_says_when_a_file_is_missing(tmp_path):
    assert "nowhere.py does not" in _error(tmp_path / "nowhere.py").message
    assert "nowhere.py does not" in _error(f"{tmp_path / 'nowhere.py'}:task").message


@pytest.mark.parametrize("name", ["notes.txt", "folder"])
def test_load_task_says_when_a_path_is_no_python_file(tmp_path, name):
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "folder").mkdir()

    assert (
        f"must be a Python file (.py), but got {tmp_path / name}" in _error(tmp_path / name).message
    )


def test_load_task_lists_known_names_and_the_closest():
    error = _error("digit")

    assert error.message == "Unknown task 'digit'."
    assert "Did you mean 'digits'? Choose from: digits, hf." in error.hint


def test_load_task_says_what_to_add_to_a_module():
    assert _error("collections.abc").hint == "Add it: collections.abc:FUNCTION."


@pytest.mark.parametrize("spec", ["", ":task", "a b:task", "my-task"])
def test_load_task_refuses_what_names_nothing(spec):
    assert "neither a name, a file nor a module" in _error(spec).message


def test_load_task_says_which_module_is_missing():
    assert "there is no 'no_such_package'" in _error("no_such_package.tasks:build").message


def test_load_task_names_the_line_that_fails_on_import(write):
    path = write("import no_such_package_either\ndef task():\n    return make()\n")

    message = _error(path).message

    line = _line_of(path, "no_such_package_either")
    assert "ModuleNotFoundError: No module named 'no_such_package_either'" in message
    assert f"({path}, line {line})" in message


def test_load_task_names_the_line_of_a_syntax_error(write):
    path = write("def task(:\n")

    assert f"({path}, line {_line_of(path, 'task(:')})" in _error(path).message


@pytest.mark.parametrize("code", ["raise SystemExit('stop')", "exit_here = int('seven')"])
def test_load_task_survives_a_file_that_raises(write, code):
    path = write(f"{code}\n")
    name = f"line {_line_of(path, code)})"

    assert name in _error(path).message
    assert not any(getattr(m, "__file__", None) == str(path) for m in list(sys.modules.values()))


def test_load_task_names_the_user_line_when_the_factory_raises(write):
    code = "def task():\n    bad = torch.zeros(2) @ torch.zeros(3)\n    return bad\n"
    path = write(code)

    message = _error(path).message

    assert "The task factory 'task' must return a Task, but raised RuntimeError: " in message
    assert f"({path}, line {_line_of(path, 'bad = ')})" in message


def test_load_task_lets_errors_raised_on_purpose_through(write):
    code = """
        from autocompress.errors import InputError
        def task():
            raise InputError("No data here.", "Fetch it.")
    """
    error = _error(write(code))

    assert (error.message, error.hint) == ("No data here.", "Fetch it.")


def test_load_task_lists_the_functions_when_the_named_one_is_missing(write):
    path = write("def tusk():\n    return make()\n")

    error = _error(path)

    assert f"{path} must define the function 'task', but does not." == error.message
    assert error.hint == "Did you mean 'tusk'? It has: make, tusk."


def test_load_task_says_when_the_name_is_no_function(write):
    assert "'task' of" in (message := _error(write("task = make()\n")).message)
    assert "but is a Task" in message


@pytest.mark.parametrize(("code", "kind"), [("return None", "NoneType"), ("return 1, 2", "tuple")])
def test_load_task_says_what_came_instead_of_a_task(write, code, kind):
    assert f"but returned {kind}." in _error(write(f"def task():\n    {code}\n")).message


def test_load_task_names_the_file_when_an_argument_is_unknown(write):
    path = write("def task(n: int = 3):\n    return make(n)\n")

    error = _error(path, {"m": "3"})

    assert f"{path}:task has no parameter 'm'" in error.message


RANDOM_TASK = """
import random
import numpy
import torch
from autocompress import Task

def task():
    draws = torch.tensor([random.random(), numpy.random.rand(), float(torch.get_num_threads())])
    model = torch.nn.Linear(3, 2)
    model.bias.data[:] = draws[:2]
    return Task(model=model, train=(draws.expand(8, 3), torch.zeros(8, dtype=torch.long)))
"""


def test_load_task_gives_the_same_model_every_time_and_leaves_random_state_alone(
    tmp_path: Path,
) -> None:
    path = tmp_path / "random_task.py"
    path.write_text(RANDOM_TASK)
    before = random.getstate(), torch.get_rng_state(), torch.get_num_threads()
    first = load_task(str(path), {})
    random.random()
    torch.manual_seed(99)
    second = load_task(str(path), {})

    for name, tensor in first.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name])
    assert float(first.train[0][0, 2]) == 1.0  # threads while the factory works
    torch.set_rng_state(before[1])
    random.setstate(before[0])
    load_task(str(path), {})
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert torch.get_num_threads() == before[2]


def test_load_teacher_takes_a_model_or_that_of_a_task(write):
    path = write("""
        def big():
            return nn.Linear(7, 3)

        def task():
            return make()
    """)
    assert load_teacher(f"{path}:big").in_features == 7
    assert load_teacher(str(path)).in_features == 2


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "def big():\n    return {}\n",
            r"teacher's function 'big' of .*my_task\.py must return a torch\.nn\.Module or a Task, "
            r"but returned dict\.",
        ),
        (
            "def big():\n    raise OSError('no such file')\n",
            "'big' must return a model, but raised OSError",
        ),
        ("def small():\n    return nn.Linear(2, 3)\n", "big"),
    ],
)
def test_load_teacher_refuses_what_is_no_model(write, code, message):
    path = write(code)
    with pytest.raises(InputError, match=message) as caught:
        load_teacher(f"{path}:big")
    assert "\n" not in caught.value.message
