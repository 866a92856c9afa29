"""The worker process: it answers, and its crash, hang or bad task costs one trial at most."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from autocompress.errors import InputError, TrialError
from autocompress.plan import CompressionPlan, LayerPlan
from autocompress.search.executors.job import EvaluationJob, ProbeJob
from autocompress.search.executors.local import LocalExecutor


def job(tmp_path: Path, bits: int = 4) -> EvaluationJob:
    plan = CompressionPlan(layers={"0": LayerPlan(weight_bits=bits)})
    return EvaluationJob(plan=plan, seed=1, fidelity=1, keep=tmp_path / "w.safetensors")


PROBE = ProbeJob(plan=CompressionPlan(layers={"0": LayerPlan(weight_bits=4)}))
Ask = Callable[[LocalExecutor, Path], object]


def run(executor: LocalExecutor, job: EvaluationJob) -> object:
    return executor.run(job, lambda stage, share: None)


def evaluate(executor: LocalExecutor, tmp_path: Path) -> object:
    return run(executor, job(tmp_path))


def look(executor: LocalExecutor, tmp_path: Path) -> object:
    return executor.probe(PROBE)


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
@pytest.mark.parametrize("ask", [evaluate, look])
def test_local_executor_survives_a_trial_that_dies(
    make: Callable[..., LocalExecutor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ask: Ask,
    what: str,
    reason: str,
    message: str,
) -> None:
    executor = make()
    monkeypatch.setenv("AUGMENT_DOES", what)
    with pytest.raises(TrialError, match=message) as caught:
        ask(executor, tmp_path)
    assert caught.value.reason == reason

    executor.close()
    monkeypatch.delenv("AUGMENT_DOES")
    assert ask(executor, tmp_path) is not None


@pytest.mark.parametrize("ask", [evaluate, look])
def test_local_executor_kills_a_trial_that_hangs_and_ignores_sigterm(
    make: Callable[..., LocalExecutor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ask: Ask,
) -> None:
    monkeypatch.setenv("AUGMENT_DOES", "hang")
    executor = make(timeout_s=8.0)
    with pytest.raises(TrialError, match="took longer than 8 s") as caught:
        ask(executor, tmp_path)

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


@pytest.mark.parametrize("is_driver_gone", [False, True])
def test_what_a_trial_has_started_ends_with_its_worker(
    make: Callable[..., LocalExecutor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_driver_gone: bool,
) -> None:
    monkeypatch.setenv("AUGMENT_DOES", "start another and hang")
    executor = make(timeout_s=10.0)
    if is_driver_gone:  # its death closes the lifeline and nothing else
        let_go = lambda: executor._process and executor._lifeline.close()  # noqa: E731
        monkeypatch.setattr(executor, "close", let_go)
    with pytest.raises(TrialError, match="took longer"):
        evaluate(executor, tmp_path)
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 5.0
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(child)
