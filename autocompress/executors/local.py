"""Evaluate in worker processes on this machine."""

import contextlib
import os
import time
from multiprocessing import connection
from typing import Final

import torch

from autocompress.errors import TrialError
from autocompress.executors.job import EvaluationJob, OnStage, Outcome, ProbeJob
from autocompress.executors.worker import Answer, Share, Worker, WorkerSpec
from autocompress.measurement import Measurement
from autocompress.space.sensitivity_table import Figures

_POLL_S: Final = 0.2


class LocalExecutor:
    """Warm worker processes with a job each.

    Several of them keep to cores of their own, as far as these go round: a trial that is timed is
    then hardly disturbed by others that train. On a machine with several GPUs each has one.

    Args:
        spec: How a worker makes its evaluator.
        timeout_s: Seconds a trial may take before its worker is killed.
        n_workers: Trials at once, >= 1.
        memory_bytes: Memory a trial may hold before its worker is killed; None for no limit.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        timeout_s: float,
        *,
        n_workers: int = 1,
        memory_bytes: int | None = None,
    ) -> None:
        gpus = _gpus(n_workers, spec.settings.device)
        shares = [
            Share(cores=cores, gpu=gpu)
            for cores, gpu in zip(_shares_of_cores(n_workers), gpus, strict=True)
        ]
        self._workers = [
            Worker(spec, timeout_s=timeout_s, memory_bytes=memory_bytes, share=share)
            for share in shares
        ]

    @property
    def n_slots(self) -> int:
        """Trials at once."""
        return len(self._workers)

    def submit(self, number: int, job: EvaluationJob) -> None:
        """Give an evaluation to a worker that has none."""
        self._free().send(job, number)

    def wait(self, on_stage: OnStage, timeout_s: float | None = None) -> Outcome | None:
        """Wait until an evaluation has ended, or has been ended for taking too long or too much.

        Raises:
            InputError: If a worker cannot load the task.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        busy = [worker for worker in self._workers if worker.number is not None]
        numbers = [worker.number for worker in busy]
        found = _first_answer(busy, on_stage, until)
        if found is None:
            return None
        at, answer = found
        number = numbers[at]
        assert number is not None
        assert isinstance(answer, Measurement | TrialError)
        return Outcome(number=number, result=answer)

    def probe(self, job: ProbeJob) -> Figures:
        """Probe a plan without training, in a worker that has nothing else to do.

        Raises:
            TrialError: If the candidate failed, took too long, or killed its worker.
            InputError: If the worker cannot load the task.
        """
        worker = self._free()
        worker.send(job)
        found = _first_answer([worker], lambda number, stage, share: None, None)
        assert found is not None
        if isinstance(found[1], TrialError):
            raise found[1]
        assert isinstance(found[1], Figures)
        return found[1]

    def close(self) -> None:
        """Kill all workers, and whatever the user's code has started in them."""
        with contextlib.ExitStack() as stack:  # all of them, whatever happens to one
            for worker in self._workers:
                stack.callback(worker.close)

    def _free(self) -> Worker:
        return next(worker for worker in self._workers if worker.number is None)


def _first_answer(
    workers: list[Worker], on_stage: OnStage, until: float | None
) -> tuple[int, Answer] | None:
    """Index and answer of the first worker that has one; None if time is up before."""
    while True:
        left = _POLL_S if until is None else min(_POLL_S, until - time.monotonic())
        ready = connection.wait([w.connection for w in workers], max(left, 0.0))
        for at, worker in enumerate(workers):
            answer = worker.drain(on_stage) if worker.connection in ready else None
            if answer is None:
                answer = worker.overdue()
            if answer is not None:
                return at, answer
        if until is not None and time.monotonic() >= until:
            return None


def _shares_of_cores(n_workers: int) -> list[list[int]]:
    """Cores for each worker to keep to; none where they would not go round."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    each = len(cores) // n_workers
    if n_workers == 1 or each == 0:
        return [[] for _ in range(n_workers)]
    return [cores[at * each : (at + 1) * each] for at in range(n_workers)]


def _gpus(n_workers: int, device: str) -> list[str]:
    """A GPU for each worker, in turns; none where there is one worker, or a GPU was named."""
    if n_workers == 1 or device != "cuda":
        return [""] * n_workers
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    visible = named.split(",") if named else [str(i) for i in range(torch.cuda.device_count())]
    return [visible[at % len(visible)] if visible else "" for at in range(n_workers)]
