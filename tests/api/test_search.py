"""`autocompress.search` from Python: tasks of every kind, resuming, and what it refuses."""

import dataclasses
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import autocompress as ac
from autocompress.api.task_spec import spec_of
from autocompress.errors import InputError, StudyMismatchError
from autocompress.tasks import in_memory

SMALL = {
    "objectives": "accuracy,size",
    "proxy": "none",
    "without": {"sensitivity_table"},
    "quiet": True,
}


def test_search_is_a_function_and_a_package_whichever_is_used_first() -> None:
    code = (
        "import autocompress as ac; assert callable(ac.search); "
        "import autocompress.study.listener; assert callable(ac.search); "
        "from autocompress.study.listener import Listener"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list(inspect.signature(ac.search).parameters)[:2] == ["task", "budget"]


def test_search_of_a_task_in_memory_goes_on_where_it_was(searched: Any, task_module: Any) -> None:
    results = searched.folder.parent

    again = ac.search(task_module.task(), budget=4, results=results, **SMALL)

    assert [p.accuracy for p in again.trials] == [p.accuracy for p in searched.trials]
    assert len(again.trials) == 4
    with pytest.raises(StudyMismatchError, match="model"):
        ac.search(task_module.task(shift=1.0), budget=5, results=results, **SMALL)


def test_search_keeps_what_resume_needs(searched: Any) -> None:
    kept = json.loads((searched.folder / "run.json").read_text())["options"]

    assert kept["budget"] == 4
    assert kept["objectives"] == "accuracy,size"
    assert kept["without"] == ["sensitivity_table"]
    assert kept["executor"] == "inline"


def test_open_run_of_a_task_from_another_process_asks_for_it(
    searched: Any, task_module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_memory, "_tasks", {})
    opened = ac.open_run(searched.folder)
    assert len(opened.front) == len(searched.front)

    with pytest.raises(InputError, match="existed only in the memory") as caught:
        opened.export("knee")
    assert "open_run(FOLDER, task=task)" in caught.value.hint

    other = ac.open_run(searched.folder, task=task_module.task(shift=1.0))
    with pytest.raises(StudyMismatchError, match="another model"):
        other.export("knee")


def test_spec_of_a_function_is_its_file(task_module: Any) -> None:
    assert spec_of(task_module.task, {}, jobs=2) == f"{task_module.__file__}:task"


def test_spec_of_what_only_this_process_has_is_in_memory(task_module: Any) -> None:
    for task in (task_module.task(), lambda: task_module.task(), task_module.task()):
        assert in_memory.is_in_memory(spec_of(task, {}, jobs=1))


@pytest.mark.parametrize(
    ("options", "said", "hint"),
    [
        ({"jobs": 2}, "`jobs` = 2 needs worker processes", "my_task.py:function"),
        ({"executor": "local"}, "The executor 'local' needs a task", "my_task.py:function"),
        ({"budget": 0}, "`budget` must be at least 1", ""),
        ({"max_drop": "much"}, "`max_drop` must be a share", "max_drop=0.01"),
        ({"name": "a/b"}, "`name` must hold letters", "results"),
        ({"threads": 0}, "`threads` must be at least 1", ""),
        ({"sampler": "tpee"}, "Unknown sampler 'tpee'", "tpe"),
        ({"arguments": {"shift": 1.0}}, "`arguments` are those of a task's function", ""),
        ({"arguments": ["shift"]}, "`arguments` must be names with their values, but got", ""),
        ({"refine": 1.5}, "`refine` must be a whole number, but got 1.5.", ""),
        ({"jobs": "2"}, "`jobs` must be a whole number, but got '2'.", ""),
        ({"name": 3}, "`name` must be a text, but got 3.", ""),
    ],
)
def test_search_names_the_argument_that_cannot_be_used(
    task_module: Any, tmp_path: Path, options: dict[str, Any], said: str, hint: str
) -> None:
    with pytest.raises(InputError) as caught:
        ac.search(task_module.task(), results=tmp_path, quiet=True, **options)

    assert said in caught.value.message
    assert hint in caught.value.hint
    assert "--" not in f"{caught.value.message}{caught.value.hint}"


def test_search_takes_whole_numbers_of_other_libraries(task_module: Any, tmp_path: Path) -> None:
    found = ac.search(
        task_module.task(), results=tmp_path, budget=np.int64(1), seed=np.int32(3), **SMALL
    )
    assert json.loads((found.folder / "run.json").read_text())["options"]["seed"] == 3


def test_search_refuses_what_is_no_task() -> None:
    with pytest.raises(InputError, match="must be a spec, a Task or a function"):
        ac.search(3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"must return an autocompress.Task, but returned int"):
        ac.search(lambda: 3)  # type: ignore[arg-type,return-value]


def test_search_in_a_task_file_without_a_guard_says_so(tmp_path: Path) -> None:
    path = tmp_path / "looping.py"
    path.write_text(
        "import autocompress as ac\ndef task():\n    return None\nac.search(task, jobs=2)\n"
    )

    with pytest.raises(InputError) as caught:
        ac.search(path, quiet=True, results=tmp_path)

    assert f"{path}, line 4, searches while it is loaded" in caught.value.message


def test_script_without_a_guard_may_use_workers(tmp_path: Path, task_module: Any) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import autocompress as ac\n"
        f"result = ac.search({task_module.__file__!r}, budget=1, quiet=True, threads=1, "
        f"results={str(tmp_path)!r}, objectives='accuracy,size', proxy='none', without='table')\n"
        "print(len(result.trials), result.run.info['options']['executor'])\n"
    )

    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False
    )

    assert done.stdout.strip().splitlines() == ["1 local"], done.stderr


def error_of(outputs: torch.Tensor, targets: torch.Tensor) -> float:
    """Goes the wrong way, as RMSE does."""
    return float((outputs.argmax(dim=1) != targets).double().mean())


def test_a_metric_that_is_lower_for_better_outputs_begins_no_run(
    task_module: Any, tmp_path: Path
) -> None:
    """The worst model would be reported as the best."""
    task = dataclasses.replace(task_module.task(), metric=error_of)
    with pytest.raises(InputError, match="lower seems to be better") as refused:
        ac.search(task, budget=2, results=tmp_path, **SMALL)
    assert "return 1 - error" in refused.value.hint
    assert list(tmp_path.iterdir()) == []


def test_what_makes_a_search_doubtful_is_warned_of_before_it_begins(
    task_module: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = task_module.task()
    task.model.requires_grad_(False)
    options = {**SMALL, "quiet": False}
    ac.search(task, budget=1, results=tmp_path / "none", **options)
    assert "All parameters are frozen" not in capsys.readouterr().err, "nothing is tuned"
    ac.search(task, budget=1, results=tmp_path, **{**options, "proxy": "quick"})
    assert "Warning: All parameters are frozen" in capsys.readouterr().err
    ac.search(task, budget=1, results=tmp_path, **{**options, "proxy": "quick"})
    assert "All parameters are frozen" not in capsys.readouterr().err, "said once"
