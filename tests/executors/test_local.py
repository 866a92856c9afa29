"""The worker process: it answers, and its crash, hang or bad task costs one trial at most."""

import dataclasses
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from autocompress.errors import InputError, TrialError
from autocompress.executors.job import EvaluationJob, Executor, ProbeJob
from autocompress.executors.local import LocalExecutor, _gpus
from autocompress.executors.worker import Share
from autocompress.measurement import Measurement
from autocompress.plan import CompressionPlan, LayerPlan


def job(tmp_path: Path, bits: int = 4) -> EvaluationJob:
    plan = CompressionPlan(layers={"0": LayerPlan(weight_bits=bits)})
    return EvaluationJob(plan=plan, seed=1, fidelity=1, keep=tmp_path / "w.safetensors")


PROBE = ProbeJob(plan=CompressionPlan(layers={"0": LayerPlan(weight_bits=4)}))
Ask = Callable[[LocalExecutor, Path], object]


def run(executor: Executor, job: EvaluationJob, stages: list[str] | None = None) -> Measurement:
    executor.submit(0, job)
    told: list[str] = [] if stages is None else stages
    outcome = executor.wait(lambda number, stage, share: told.append(stage))
    assert outcome is not None
    return outcome.measurement()


def evaluate(executor: LocalExecutor, tmp_path: Path) -> object:
    return run(executor, job(tmp_path))


def probed(executor: LocalExecutor, tmp_path: Path) -> object:
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
    first = run(executor, job(tmp_path), stages)
    pid = executor._workers[0]._process.pid
    second = run(executor, job(tmp_path))

    assert executor._workers[0]._process.pid == pid
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
@pytest.mark.parametrize("ask", [evaluate, probed])
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


@pytest.mark.parametrize("ask", [evaluate, probed])
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
    assert executor._workers[0]._process is None


def test_a_result_that_lies_behind_other_messages_is_no_timeout(
    make: Callable[..., LocalExecutor], tmp_path: Path
) -> None:
    """A driver that was paused, as by a suspended laptop, finds time up and the result waiting."""
    executor = make()
    executor.submit(7, job(tmp_path))
    worker = executor._workers[0]
    patience = time.monotonic() + 60.0
    while not (tmp_path / "w.safetensors").exists() and time.monotonic() < patience:
        time.sleep(0.05)
    time.sleep(1.0)  # the file is written just before the result is sent
    worker._deadline = 0.0
    outcome = executor.wait(lambda number, stage, share: None)
    assert outcome is not None
    assert outcome.measurement().accuracy > 0.0


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
    pid = executor._workers[0]._process.pid
    os.kill(pid, signal.SIGSTOP)  # as busy as a worker can be
    executor._workers[0]._lifeline.close()  # what the driver's death does
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
        let_go = lambda: executor._workers[0]._process and executor._workers[0]._lifeline.close()  # noqa: E731
        monkeypatch.setattr(executor._workers[0], "close", let_go)
    with pytest.raises(TrialError, match="took longer"):
        evaluate(executor, tmp_path)
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 5.0
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(child)


def test_local_executor_works_on_several_trials_at_once(
    make: Callable[..., LocalExecutor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUGMENT_DOES", "wait for another")  # one alone would never end
    executor = make(n_workers=2)
    assert executor.n_slots == 2
    stages: set[int] = set()
    for number in (4, 9):
        executor.submit(number, dataclasses.replace(job(tmp_path), keep=tmp_path / f"{number}.st"))
    outcomes = [executor.wait(lambda number, stage, share: stages.add(number)) for _ in range(2)]

    assert stages == {4, 9}
    assert {outcome.number for outcome in outcomes if outcome} == {4, 9}
    losses = [outcome.measurement().loss for outcome in outcomes if outcome]
    assert losses[0] == losses[1]  # same plan and seed, whoever else is there


def test_local_executor_leaves_a_trial_when_time_is_up(
    make: Callable[..., LocalExecutor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUGMENT_DOES", "hang")
    executor = make()
    executor.submit(0, job(tmp_path))
    start = time.monotonic()
    assert executor.wait(lambda number, stage, share: None, timeout_s=0.5) is None
    assert time.monotonic() - start < 5.0


def test_a_worker_that_dies_or_takes_too_much_costs_the_others_nothing(
    make: Callable[..., LocalExecutor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = make(n_workers=2, memory_bytes=1_200_000_000)
    executor.submit(0, job(tmp_path))
    first = executor.wait(lambda number, stage, share: None)
    assert first is not None
    first.measurement()
    monkeypatch.setenv("AUGMENT_DOES", "hoard")  # seen by the worker that starts now
    executor.submit(1, job(tmp_path))
    executor.submit(2, job(tmp_path))
    results = {}
    for _ in range(2):
        outcome = executor.wait(lambda number, stage, share: None)
        assert outcome is not None
        results[outcome.number] = outcome.result

    assert isinstance(results[1], Measurement)
    assert isinstance(results[2], TrialError)
    assert results[2].reason == "memory"
    assert re.search(r"held 1\.[0-9]+ GB of memory, more than the 1\.20 GB", results[2].message)


def test_a_trial_that_reports_all_the_time_is_killed_when_it_takes_too_long(
    make: Callable[..., LocalExecutor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUGMENT_DOES", "run on")
    executor = make(timeout_s=9.0)
    executor.submit(0, job(tmp_path))
    told: list[float] = []
    outcome = executor.wait(lambda number, stage, share: told.append(share))
    assert outcome is not None
    assert isinstance(outcome.result, TrialError)
    assert outcome.result.reason == "timeout"
    assert len(told) > 5


def test_a_worker_that_died_is_missed_while_its_child_lives(
    make: Callable[..., LocalExecutor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUGMENT_DOES", "fork and die")
    executor = make(timeout_s=300.0)
    with pytest.raises(TrialError, match="SIGKILL") as caught:
        run(executor, job(tmp_path))
    assert caught.value.reason == "worker_died"


def test_workers_keep_to_cores_of_their_own(
    make: Callable[..., LocalExecutor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 5, 6})
    cores = [worker._share.cores for worker in make(n_workers=2)._workers]
    assert cores == [[0, 1], [2, 5]]
    assert [worker._share.cores for worker in make(n_workers=6)._workers] == [[]] * 6
    assert [worker._share.cores for worker in make()._workers] == [[]]


def test_workers_have_gpus_of_their_own(
    make: Callable[..., LocalExecutor], task_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no GPU here: what is tested is which one a worker is given, and that it sees it."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert _gpus(3, "cuda") == ["0", "1", "0"]
    assert _gpus(1, "cuda") == [""]
    assert _gpus(2, "cuda:1") == _gpus(2, "cpu") == ["", ""]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    assert _gpus(2, "cuda") == ["GPU-a", "GPU-b"]

    monkeypatch.setenv("AUGMENT_DOES", "tell the GPU")
    executor = make(n_workers=2)
    executor._workers[0]._share = Share(gpu="GPU-b")
    executor.probe(PROBE)
    assert task_path.with_name("gpu").read_text() == "GPU-b"
