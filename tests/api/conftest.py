"""One search from Python, shared by the tests here."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

SMALL = {
    "objectives": "accuracy,size",
    "proxy": "none",
    "without": {"sensitivity_table"},
    "quiet": True,
}
TASK = """
import torch
from torch import nn
from autocompress import Task

def task(shift: float = 0.0) -> Task:
    torch.manual_seed(0)
    x = torch.randn(300, 8)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    y = (model(x).argmax(dim=1) + (torch.rand(300) < 0.1)) % 3
    with torch.no_grad():
        model[2].bias += shift
    rows = (slice(0, 200), slice(200, 260), slice(260, 300))
    train, val, test = ((x[r], y[r]) for r in rows)
    return Task(model=model, train=train, val=val, test=test, name="small")
"""


@pytest.fixture(scope="session")
def task_module(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A module with a factory `task`, imported from a file as a user's script would."""
    path = tmp_path_factory.mktemp("api") / "small_task.py"
    path.write_text(TASK)
    spec = importlib.util.spec_from_file_location("small_task", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["small_task"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["small_task"]


@pytest.fixture(scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A cache apart from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOCOMPRESS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory, task_module: Any, own_cache: None) -> Any:
    """The result of searching a Task in memory; not to be changed."""
    import autocompress as ac

    folder: Path = tmp_path_factory.mktemp("results")
    return ac.search(task_module.task(), budget=4, results=folder, **SMALL)
