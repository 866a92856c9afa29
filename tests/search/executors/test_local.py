"""The worker process: it answers, and its crash, hang or bad task costs one trial at most."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autocompress.analysis.fingerprint import model_fingerprint
from autocompress.errors import InputError, TrialError
from autocompress.evaluate.evaluator import EvaluationSettings
from autocompress.plan import CompressionPlan, LayerPlan
from autocompress.search.executors.job import EvaluationJob
from autocompress.search.executors.local import LocalExecutor, WorkerSpec
from autocompress.tasks.factory import load_task

TASK = """
import os, signal, time
import torch
from torch import nn
from autocompress import Task

def augment(inputs, generator):
    what = os.environ.get("AUGMENT_DOES", "")
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "hang":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    if what == "raise":
        raise RuntimeError("the augmentation broke")
    return inputs

def task():
    torch.manual_seed(0)
    x = torch.randn(256, 8)
    y = (x[:, 0] > 0).long()
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    return Task(model=model, train=(x, y), val=(x, y), augment=augment)
"""


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., LocalExecutor]]:
    path = tmp_path / "my_task.py"
    path.write_text(TASK)
    started: list[LocalExecutor] = []

    fingerprint = model_fingerprint(load_task(str(path), {}).model.eval())

    def make_(
        task: str = str(path), timeout_s: float = 60.0, model: str | None = None
    ) -> LocalExecutor:
        settings = EvaluationSettings(threads=1, has_latency=False)
        spec = WorkerSpec(task=task, arguments={}, settings=settings, model=model or fingerprint)
        started.append(LocalExecutor(spec, timeout_s))
        return started[-1]

    yield make_
    for executor in started:
        executor.close()


def job(tmp_path: Path, bits: int = 4) -> EvaluationJob:
    plan = CompressionPlan(layers={"0": LayerPlan(weight_bits=bits)})
    return EvaluationJob(plan=plan, seed=1, fidelity=1, keep=tmp_path / "w.safetensors")


def run(executor: LocalExecutor, job: EvaluationJob) -> object:
    return executor.run(job, lambda stage, share: None)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_local_executor_measures_reproducibly_in_a_warm_worker(
    make: Callable[..., LocalExecutor], tmp_path: Path
) -> None:
    executor = make()
    stages: list[str] = []
    first = executor.run(job(tmp_path), lambda stage, share: stages.append(stage))
    pid = executor._process.pid
    second = executor.run(job(tmp_path), lambda stage, share: None)

    assert executor._process.pid == pid
    assert (first.accuracy, first.loss, first.size_bytes) == (
        second.accuracy,
        second.loss,
        second.size_bytes,
    )
    assert {"build", "tune", "score", "export"} <= set(stages)
    assert (tmp_path / "w.safetensors").is_file()


@pytest.mark.parametrize(
    ("what", "reason", "message"),
    [
        ("die", "worker_died", r"killed by signal 9 \(SIGKILL\)"),
        ("raise", "crashed", "RuntimeError: the augmentation broke"),
    ],
)
def test_local_executor_survives_a_trial_that_dies(
    make: Callable[..., LocalExecutor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    reason: str,
    message: str,
) -> None:
    executor = make()
    monkeypatch.setenv("AUGMENT_DOES", what)
    with pytest.raises(TrialError, match=message) as caught:
        run(executor, job(tmp_path))
    assert caught.value.reason == reason

    executor.close()
    monkeypatch.delenv("AUGMENT_DOES")
    assert run(executor, job(tmp_path)) is not None


def test_local_executor_kills_a_trial_that_hangs_and_ignores_sigterm(
    make: Callable[..., LocalExecutor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUGMENT_DOES", "hang")
    executor = make(timeout_s=8.0)
    with pytest.raises(TrialError, match="took longer than 8 s") as caught:
        run(executor, job(tmp_path))

    assert caught.value.reason == "timeout"
    assert executor._process is None


def test_local_executor_passes_on_why_a_task_cannot_be_loaded(
    make: Callable[..., LocalExecutor], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"nowhere\.py"):
        run(make(task=str(tmp_path / "nowhere.py")), job(tmp_path))


def test_local_executor_refuses_a_task_whose_model_differs_in_the_worker(
    make: Callable[..., LocalExecutor], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="another model each time"):
        run(make(model="0" * 64), job(tmp_path))


def test_worker_ends_when_its_driver_is_gone(
    make: Callable[..., LocalExecutor], tmp_path: Path
) -> None:
    executor = make()
    run(executor, job(tmp_path))
    pid = executor._process.pid
    os.kill(pid, signal.SIGSTOP)  # as busy as a worker can be
    executor._lifeline.close()  # what the driver's death does
    os.kill(pid, signal.SIGCONT)
    deadline = time.monotonic() + 5.0
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)

    assert not is_running(pid)
