"""A task whose user code misbehaves on demand, and executors that evaluate it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from autocompress.evaluate.settings import EvaluationSettings
from autocompress.executors.local import LocalExecutor
from autocompress.executors.worker import WorkerSpec
from autocompress.tasks.factory import load_task
from autocompress.tasks.fingerprint import model_fingerprint

TASK = """
import os, resource, signal, subprocess, sys, time
from pathlib import Path
import torch
from torch import nn
from autocompress import Task

def augment(inputs, generator):
    told = Path(__file__).with_name("augment_does")
    what = told.read_text() if told.exists() else os.environ.get("AUGMENT_DOES", "")
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    marker = Path(__file__).with_name("died")
    if what == "die once" and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "fill the disk":
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))
    if what == "start another and hang":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        Path(__file__).with_name("child").write_text(str(child.pid))
        time.sleep(600)
    if what == "hang":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    if what == "raise":
        raise RuntimeError("the augmentation broke")
    if what == "hoard":
        inputs[0].hoard = bytearray(1_500_000_000)
        time.sleep(600)
    if what == "wait for another":
        me = Path(__file__).with_name(f"here.{os.getpid()}")
        me.touch()
        while len(list(me.parent.glob("here.*"))) < 2:
            time.sleep(0.05)
    if what == "tell the GPU":
        Path(__file__).with_name("gpu").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    if what == "run on":
        time.sleep(0.02)
    if what == "fork and die":
        if os.fork() == 0:
            time.sleep(600)
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "exhaust once" and not marker.exists():
        marker.touch()
        raise MemoryError
    if what == "exhaust":
        raise MemoryError
    return inputs

def task():
    torch.manual_seed(0)
    x = torch.randn(256, 8)
    y = (x[:, 0] > 0).long()
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    epochs = 500 if os.environ.get("AUGMENT_DOES") == "run on" else 1
    return Task(model=model, train=(x, y), val=(x, y), augment=augment, proxy_epochs=epochs)
"""
SETTINGS = EvaluationSettings(threads=1, has_latency=False)


@pytest.fixture
def task_path(tmp_path: Path) -> Path:
    path = tmp_path / "my_task.py"
    path.write_text(TASK)
    return path


@pytest.fixture
def make(task_path: Path) -> Iterator[Callable[..., LocalExecutor]]:
    """Make local executors; they are closed after the test."""
    started: list[LocalExecutor] = []
    fingerprint = model_fingerprint(load_task(str(task_path), {}).model.eval())

    def make_(
        task: str = str(task_path),
        timeout_s: float = 60.0,
        model: str | None = None,
        **options: Any,
    ) -> LocalExecutor:
        spec = WorkerSpec(task=task, arguments={}, settings=SETTINGS, model=model or fingerprint)
        started.append(LocalExecutor(spec, timeout_s, **options))
        return started[-1]

    yield make_
    for executor in started:
        executor.close()
