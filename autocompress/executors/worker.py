"""A process that evaluates plans, and can hang, crash or run out of memory without harm."""

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, Final

import psutil

from autocompress.errors import AutocompressError, InputError, TrialError
from autocompress.evaluate.dominance import HopelessError
from autocompress.evaluate.evaluator import Evaluator
from autocompress.evaluate.settings import EvaluationSettings
from autocompress.executors.inline import evaluate_job, probe_job
from autocompress.executors.job import EvaluationJob, OnStage, ProbeJob
from autocompress.measurement import Measurement
from autocompress.space.sensitivity_table import Figures
from autocompress.tasks.factory import load_task
from autocompress.tasks.fingerprint import model_fingerprint
from autocompress.tasks.prepare import prepare_task

Answer = Measurement | Figures | TrialError

_GRACE_S: Final = 2.0
_WEIGH_S: Final = 0.2  # between two looks at its memory
_TELL_S: Final = 0.1  # between two words on one stage: a driver may read none for minutes
_MOST_MESSAGES: Final = 100
_CONTEXT: Final = multiprocessing.get_context("spawn")
_NOBODY: Final = -1


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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What of the machine is one worker's.

    Attributes:
        cores: Processor cores it may run on; empty for any.
        gpu: The GPU it sees, as `CUDA_VISIBLE_DEVICES` names it; empty for all.
    """

    cores: Sequence[int] = ()
    gpu: str = ""


class Worker:
    """One warm process with one job at a time; started on first use, replaced when it dies.

    Args:
        spec: How it makes its evaluator.
        timeout_s: Seconds a job may take.
        memory_bytes: Memory that it and what it starts may hold; None for no limit.
        share: What of the machine is its own.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        *,
        timeout_s: float,
        memory_bytes: int | None = None,
        share: Share | None = None,
    ) -> None:
        self._spec = spec
        self._timeout_s = timeout_s
        self._memory_bytes = memory_bytes
        self._share = share or Share()
        self._process: Any = None
        self._deadline = self._weighed = 0.0
        self._lifeline: Connection
        self.connection: Connection
        self.number: int | None = None

    def send(self, job: EvaluationJob | ProbeJob, number: int = _NOBODY) -> None:
        """Give it a job, and start it before if it does not live."""
        assert self.number is None
        if self._process is None or not self._process.is_alive():
            self._start()
        self._deadline = time.monotonic() + self._timeout_s
        self.number = number
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # what is read tells why
            self.connection.send((number, job))

    def drain(self, on_stage: OnStage) -> Answer | None:
        """Read all it has written, as `receive` does: a result may lie behind other messages.

        After a pause of the driver, such as a suspended laptop's, its time seems to be up although
        it ended long ago. However much it has to tell, it is judged after 100 messages.
        """
        for _ in range(_MOST_MESSAGES):
            answer = self.receive(on_stage)
            if answer is not None or not self.connection.poll():
                return answer
        return None

    def receive(self, on_stage: OnStage) -> Answer | None:
        """Read one message.

        Args:
            on_stage: Told how far it is.

        Returns:
            What came of its job, or None while it is at work.

        Raises:
            InputError: If it cannot load the task.
        """
        try:
            kind, *content = self.connection.recv()
        except (EOFError, OSError):
            return TrialError("worker_died", f"The worker process {self._died()}.")
        if kind == "stage":
            on_stage(*content)
            return None
        self.number = None
        if kind == "measured":
            answer: Answer = content[0]
            return answer
        if kind == "refused":
            raise InputError(*content)
        if kind == "hopeless":
            return HopelessError(*content)
        error = TrialError(*content)
        if error.reason == "oom":
            self.close()  # what is left of its memory may be too little for the next
        return error

    def overdue(self) -> TrialError | None:
        """End a job that takes too long or too much, or whose process is gone, and say so."""
        if not self._process.is_alive() and not self.connection.poll():
            # what it has started may hold the pipe open
            return TrialError("worker_died", f"The worker process {self._died()}.")
        if time.monotonic() >= self._deadline:
            self.close()
            return TrialError("timeout", f"The trial took longer than {self._timeout_s:g} s.")
        if self._memory_bytes is None or time.monotonic() < self._weighed + _WEIGH_S:
            return None
        self._weighed = time.monotonic()
        if (held := self._memory()) <= self._memory_bytes:
            return None
        self.close()
        return TrialError(
            "memory",
            f"The trial held {held / 1e9:.2f} GB of memory, more than the "
            f"{self._memory_bytes / 1e9:.2f} GB it may.",
        )

    def close(self) -> None:
        """Kill the process, if there is one, and whatever the user's code has started in it."""
        self.number = None
        if self._process is None:
            return
        self._lifeline.close()
        self.connection.close()
        self._process.terminate()
        self._process.join(_GRACE_S)
        _kill_group(self._process.pid)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process = None

    def _start(self) -> None:
        self.close()
        self.connection, jobs = _CONTEXT.Pipe()
        lifeline, self._lifeline = _CONTEXT.Pipe(duplex=False)
        process = _CONTEXT.Process(
            target=_serve, args=(jobs, lifeline, self._spec, self._share), daemon=False
        )
        with _without_main():
            process.start()
        self._process = process  # only now is there something to kill
        jobs.close()
        lifeline.close()

    def _memory(self) -> int:
        """Bytes that it and what it has started hold."""
        total = 0
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self._process.pid)
            for each in (process, *process.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    total += each.memory_info().rss
        return total

    def _died(self) -> str:
        self._process.join(_GRACE_S)
        code = self._process.exitcode
        self.close()
        if code is not None and code < 0:
            return f"was killed by signal {-code} ({signal.Signals(-code).name})"
        return f"ended with exit code {code}"


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Hide the user's script from a process that is started: it would run the script again.

    Nothing that a worker is given lives in `__main__`, so that a script that searches needs no
    `if __name__ == "__main__":`.
    """
    own = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = own


def make_evaluator(spec: WorkerSpec) -> Evaluator:
    """Load the task in this process.

    Raises:
        InputError: If it cannot be loaded, or its model is not the driver's.
    """
    task = load_task(spec.task, spec.arguments)
    evaluator = Evaluator(prepare_task(task), spec.settings)
    if model_fingerprint(evaluator.model) != spec.model:
        raise InputError(
            f"The task {spec.task!r} gives another model each time it is loaded.",
            "Save the trained weights and let the task load them.",
        )
    return evaluator


def _serve(jobs: Connection, lifeline: Connection, spec: WorkerSpec, share: Share) -> None:
    """Main function of a worker: evaluate jobs until the driver closes the pipe or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    if hasattr(os, "setsid"):
        os.setsid()  # a group of its own: what it starts ends with it
    with contextlib.suppress(OSError):  # stdout is the driver's, for what it has found
        os.dup2(2, 1)
    if share.cores and hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):  # a container may have taken a core away
            os.sched_setaffinity(0, share.cores)
    if share.gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = share.gpu  # read when CUDA is first used
    threading.Thread(target=_die_with_driver, args=(lifeline,), daemon=True).start()
    try:
        evaluator = make_evaluator(spec)
    except AutocompressError as error:
        with contextlib.suppress(EOFError, OSError):
            jobs.recv()
            jobs.send(("refused", error.message, error.hint))
        return
    with contextlib.suppress(EOFError, OSError):
        while True:
            number, job = jobs.recv()
            try:
                jobs.send(("measured", _answer(evaluator, number, job, jobs)))
            except HopelessError as error:
                jobs.send(("hopeless", error.message, error.figures))
            except TrialError as error:
                jobs.send(("failed", error.reason, error.message))


def _answer(
    evaluator: Evaluator, number: int, job: EvaluationJob | ProbeJob, jobs: Connection
) -> Measurement | Figures:
    if isinstance(job, ProbeJob):
        return probe_job(evaluator, job)
    told, last = time.monotonic(), ""

    def tell(number: int, stage: str, share: float) -> None:
        nonlocal told, last
        if stage != last or time.monotonic() >= told + _TELL_S:
            jobs.send(("stage", number, stage, share))
            told, last = time.monotonic(), stage

    return evaluate_job(evaluator, number, job, tell)


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
