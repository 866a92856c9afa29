"""Evaluate in a worker process that can hang, crash or run out of memory without harm."""

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

from autocompress.analysis.fingerprint import model_fingerprint
from autocompress.errors import AutocompressError, InputError, TrialError
from autocompress.evaluate.dominance import HopelessError
from autocompress.evaluate.evaluator import Evaluator
from autocompress.evaluate.settings import EvaluationSettings
from autocompress.measurement import Measurement
from autocompress.search.executors.inline import evaluate_job, probe_job
from autocompress.search.executors.job import EvaluationJob, OnStage, ProbeJob
from autocompress.space.option_table import Figures
from autocompress.tasks.factory import load_task
from autocompress.tasks.prepare import prepare_task

_POLL_S = 0.2
_GRACE_S = 2.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpec:
    """How a worker makes its evaluator: it loads the task itself, nothing is pickled.

    Attributes:
        task: The task's spec, as `load_task` takes it.
        arguments: Arguments of its factory.
        settings: How candidates are tuned and measured.
        model: Fingerprint that the base model must have in the worker, too.
    """

    task: str
    arguments: Mapping[str, str]
    settings: EvaluationSettings
    model: str


class LocalExecutor:
    """One warm worker process; started on first use, replaced when it dies or hangs.

    Args:
        spec: How the worker makes its evaluator.
        timeout_s: Seconds a trial may take before its worker is killed.
    """

    def __init__(self, spec: WorkerSpec, timeout_s: float) -> None:
        self._spec = spec
        self._timeout_s = timeout_s
        self._context = multiprocessing.get_context("spawn")
        self._process: Any = None
        self._jobs: Connection
        self._lifeline: Connection

    def run(self, job: EvaluationJob, on_stage: OnStage) -> Measurement:
        """Evaluate one job in the worker.

        Raises:
            TrialError: If the candidate failed, took too long, or killed its worker.
            InputError: If the worker cannot load the task.
        """
        measurement = self._ask(job, on_stage)
        assert isinstance(measurement, Measurement)
        return measurement

    def probe(self, job: ProbeJob) -> Figures:
        """Look at a plan without training, in the worker.

        Raises:
            TrialError: If the candidate failed, took too long, or killed its worker.
            InputError: If the worker cannot load the task.
        """
        figures = self._ask(job, lambda stage, share: None)
        assert isinstance(figures, Figures)
        return figures

    def _ask(self, job: EvaluationJob | ProbeJob, on_stage: OnStage) -> Measurement | Figures:
        """Send a job to the worker and wait for its answer."""
        if self._process is None or not self._process.is_alive():
            self._start()
        deadline = time.monotonic() + self._timeout_s
        try:
            self._jobs.send(job)
            while time.monotonic() < deadline:
                if self._jobs.poll(_POLL_S):
                    kind, *content = self._jobs.recv()
                    if kind == "stage":
                        on_stage(*content)
                    elif kind == "measured":
                        return content[0]
                    elif kind == "refused":
                        raise InputError(*content)
                    elif kind == "hopeless":
                        raise HopelessError(*content)
                    else:
                        raise TrialError(*content)
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            raise TrialError("worker_died", f"The worker process {self._died()}.") from error
        self.close()
        raise TrialError("timeout", f"The trial took longer than {self._timeout_s:g} s.")

    def close(self) -> None:
        """Kill the worker, if there is one, and whatever the user's code has started in it."""
        if self._process is None:
            return
        self._lifeline.close()
        self._jobs.close()
        self._process.terminate()
        self._process.join(_GRACE_S)
        _kill_group(self._process.pid)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process = None

    def _start(self) -> None:
        self.close()
        self._jobs, jobs = self._context.Pipe()
        lifeline, self._lifeline = self._context.Pipe(duplex=False)
        self._process = self._context.Process(
            target=_serve, args=(jobs, lifeline, self._spec), daemon=False
        )
        self._process.start()
        jobs.close()
        lifeline.close()

    def _died(self) -> str:
        self._process.join(_GRACE_S)
        code = self._process.exitcode
        self.close()
        if code is not None and code < 0:
            return f"was killed by signal {-code} ({signal.Signals(-code).name})"
        return f"ended with exit code {code}"


def _serve(jobs: Connection, lifeline: Connection, spec: WorkerSpec) -> None:
    """Main function of a worker: evaluate jobs until the driver closes the pipe or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    if hasattr(os, "setsid"):
        os.setsid()  # a group of its own: what it starts ends with it
    threading.Thread(target=_die_with_driver, args=(lifeline,), daemon=True).start()
    try:
        task = load_task(spec.task, spec.arguments)
        evaluator = Evaluator(prepare_task(task), spec.settings)
        if model_fingerprint(evaluator.model) != spec.model:
            raise InputError(
                f"The task {spec.task!r} gives another model each time it is loaded.",
                "Save the trained weights and let the task load them.",
            )
    except AutocompressError as error:
        with contextlib.suppress(EOFError, OSError):
            jobs.recv()
            jobs.send(("refused", error.message, error.hint))
        return
    with contextlib.suppress(EOFError, OSError):
        while True:
            job = jobs.recv()
            try:
                jobs.send(("measured", _answer(evaluator, job, jobs)))
            except HopelessError as error:
                jobs.send(("hopeless", error.message, error.figures))
            except TrialError as error:
                jobs.send(("failed", error.reason, error.message))


def _answer(
    evaluator: Evaluator, job: EvaluationJob | ProbeJob, jobs: Connection
) -> Measurement | Figures:
    if isinstance(job, ProbeJob):
        return probe_job(evaluator, job)
    return evaluate_job(evaluator, job, lambda stage, share: jobs.send(("stage", stage, share)))


def _die_with_driver(lifeline: Connection) -> None:
    """Block until the driver's end of the pipe closes; its death closes it, however it dies."""
    with contextlib.suppress(EOFError, OSError):
        lifeline.recv()
    _kill_group(os.getpid())
    os._exit(1)


def _kill_group(leader: int) -> None:
    """Kill a process and all it has started, if it leads a group; else nothing."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)
