"""A task file whose trials take a fraction of a second, and the command line as a process."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

SEARCH = ("search", "my_task.py", "--threads", "1", "--quiet", "--executor", "inline")
UNTIMED_SEARCH = (*SEARCH, "--objectives", "accuracy,size")
TASK = '''
import os, pathlib, time
import numpy as np
import torch
from torch import nn
from autocompress import Task

def hold(inputs, generator):
    """Wait in the middle of a trial while the file named by HOLD exists."""
    path = os.environ.get("HOLD")
    if path and pathlib.Path(path).exists():
        pathlib.Path(path + ".reached").touch()
        while True:
            time.sleep(0.05)
    return inputs

def task():
    digits = np.load(pathlib.Path(__file__).with_name("digits.npz"))
    x, y = torch.tensor(digits["x"]), torch.tensor(digits["y"])
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))
    for _ in range(300):  # by hand: torch.optim takes longer to import than this takes to run
        loss = nn.functional.cross_entropy(model(x[:1200]), y[:1200])
        weights = list(model.parameters())
        with torch.no_grad():
            for weight, slope in zip(weights, torch.autograd.grad(loss, weights)):
                weight -= 0.5 * slope
    return Task(model=model, train=(x[:1200], y[:1200]), val=(x[1200:1500], y[1200:1500]),
                test=(x[1500:], y[1500:]), augment=hold, name="mlp", proxy_epochs=2)
'''


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all tests here, apart from the user's."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path) -> Path:
    """Folder with the task file and `results/a`, a finished run of 7 trials; copy it."""
    folder = tmp_path_factory.mktemp("finished")
    _search(folder, cache_folder, *SEARCH, "--budget", "7", "--run", "a")
    return folder


@pytest.fixture
def searched(tmp_path: Path, finished_run: Path) -> Path:
    """A copy of the finished run, in this test's folder."""
    shutil.copytree(finished_run, tmp_path, dirs_exist_ok=True)
    return tmp_path / "results" / "a"


@pytest.fixture(scope="session")
def finished_untimed_run(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path) -> Path:
    """The same of 8 trials in `results/u`, whose proposals do not depend on milliseconds."""
    folder = tmp_path_factory.mktemp("untimed")
    _search(folder, cache_folder, *UNTIMED_SEARCH, "--budget", "8", "--run", "u")
    return folder


@pytest.fixture
def untimed(tmp_path: Path, finished_untimed_run: Path) -> Path:
    """A copy of that run, in this test's folder."""
    shutil.copytree(finished_untimed_run, tmp_path, dirs_exist_ok=True)
    return tmp_path / "results" / "u"


def _search(folder: Path, cache_folder: Path, *arguments: str) -> None:
    write_task(folder)
    done = subprocess.run(
        command(arguments),
        cwd=folder,
        env={**os.environ, "AUTOCOMPRESS_CACHE": str(cache_folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    return write_task(tmp_path)


@pytest.fixture
def environment(cache_folder: Path) -> dict[str, str]:
    """The caller's, without what it may say about where studies are kept."""
    own = {name: value for name, value in os.environ.items() if name != "AUTOCOMPRESS_STORAGE"}
    return {**own, "AUTOCOMPRESS_CACHE": str(cache_folder), "COLUMNS": "100"}


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run_cli(tmp_path: Path, environment: dict[str, str]) -> Run:
    """Run `autocompress` in a folder of its own; returns the finished process."""

    def run(*arguments: str, timeout: float = 120.0, **changes: Any) -> Any:
        return subprocess.run(
            command(arguments),
            cwd=tmp_path,
            env={**environment, **changes},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


@pytest.fixture
def start_cli(tmp_path: Path, environment: dict[str, str]) -> Callable[..., Any]:
    """Start `autocompress` in a folder of its own and leave it running."""

    def start(*arguments: str, **changes: str) -> Any:
        return subprocess.Popen(
            command(arguments),
            cwd=tmp_path,
            env={**environment, **changes},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def write_task(folder: Path) -> Path:
    """The task file, and its data beside it."""
    x, y = load_digits(return_X_y=True)
    np.savez(folder / "digits.npz", x=(x / 16.0).astype(np.float32), y=y)
    path = folder / "my_task.py"
    path.write_text(TASK)
    return path


def command(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "autocompress", *arguments]
