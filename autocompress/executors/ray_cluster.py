"""Evaluate on a Ray cluster, wherever it has room.

Needs the extra `autocompress[ray]`. Tasks are plain Ray core tasks: Ray finds a node with the cores
(and the GPU) they ask for, and says when a worker or a whole node is lost.
"""

import dataclasses
import importlib
import json
import os
import signal
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

from autocompress.atomic_file import write_atomically
from autocompress.errors import AutocompressError, InputError, TrialError, first_line
from autocompress.evaluate.dominance import HopelessError
from autocompress.evaluate.evaluator import Evaluator
from autocompress.executors.inline import evaluate_job, probe_job
from autocompress.executors.job import EvaluationJob, OnStage, Outcome, ProbeJob
from autocompress.executors.worker import WorkerSpec, make_evaluator
from autocompress.measurement import Measurement
from autocompress.space.sensitivity_table import Figures

_POLL_S: Final = 0.5
_REACH_S: Final = 10.0
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


class RayExecutor:
    """Tasks of a Ray cluster; with no address, one of this machine that ends with the search.

    The task must load on every node: the same packages, and its files under the same path. Weights
    travel back to the driver, which writes them.

    Args:
        spec: How a node makes its evaluator.
        address: `host:port` of the cluster; None starts one on this machine, reachable from it
            alone.
        n_slots: Trials at once.
        timeout_s: Seconds from handing a trial to Ray until it is given up.
        memory_bytes: Memory that Ray sets aside for a trial; None for none.

    Raises:
        InputError: If Ray is not installed, the address cannot be reached, or it is another
            machine's and nothing protects it.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        *,
        address: str | None,
        n_slots: int,
        timeout_s: float,
        memory_bytes: int | None = None,
    ) -> None:
        check_address(address)
        self._ray = _import_ray()
        self._timeout_s = timeout_s
        self.n_slots = n_slots
        self._running: dict[Any, tuple[int, EvaluationJob, float]] = {}
        _connect(self._ray, address, n_cpus=n_slots * spec.settings.threads)
        is_gpu = spec.settings.device.startswith("cuda")
        remote = self._ray.remote(
            num_cpus=spec.settings.threads,
            num_gpus=1 if is_gpu else 0,
            memory=memory_bytes,
            max_retries=0,  # the driver decides what is done again
        )(_work)
        self._spec = self._ray.put(spec)
        self._remote = remote

    def submit(self, number: int, job: EvaluationJob) -> None:
        """Hand an evaluation to Ray."""
        reference = self._remote.remote(self._spec, job)
        self._running[reference] = number, job, time.monotonic() + self._timeout_s

    def wait(self, on_stage: OnStage, timeout_s: float | None = None) -> Outcome | None:
        """Wait until an evaluation has ended or been given up; stages are not told.

        Raises:
            InputError: If a node cannot load the task.
            AutocompressError: If the cluster is gone.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left = _POLL_S if until is None else max(0.0, min(_POLL_S, until - time.monotonic()))
            done = self._first_done(left)
            if done is not None:
                number, job, _ = self._running.pop(done)
                return Outcome(number=number, result=self._result(done, job))
            for reference, (number, _, deadline) in self._running.items():
                if time.monotonic() >= deadline:
                    self._cancel(reference)
                    del self._running[reference]
                    message = f"The trial took longer than {self._timeout_s:g} s."
                    return Outcome(number=number, result=TrialError("timeout", message))
            if until is not None and time.monotonic() >= until:
                return None

    def probe(self, job: ProbeJob) -> Figures:
        """Probe a plan without training, on some node.

        Raises:
            TrialError: If the candidate failed, or its worker or node was lost.
            InputError: If the node cannot load the task.
        """
        figures = self._answer(self._remote.remote(self._spec, job))
        if isinstance(figures, TrialError):
            raise figures
        assert isinstance(figures, Figures)
        return figures

    def close(self) -> None:
        """Give up what runs, and leave the cluster; one of our own ends."""
        for reference in self._running:
            self._cancel(reference)
        self._running.clear()
        self._ray.shutdown()

    def _first_done(self, timeout_s: float) -> Any | None:
        try:
            done, _ = self._ray.wait(list(self._running), num_returns=1, timeout=timeout_s)
        except (self._ray.exceptions.RayError, ConnectionError) as error:
            raise _gone(error) from error
        return done[0] if done else None

    def _result(self, reference: Any, job: EvaluationJob) -> Measurement | TrialError:
        answer = self._answer(reference)
        if isinstance(answer, TrialError):
            return answer
        measurement, weights = answer
        write_atomically(job.keep, weights)
        assert isinstance(measurement, Measurement)
        return measurement

    def _answer(self, reference: Any) -> Any:
        """What a task has given back, or the TrialError that stands for its end."""
        errors = self._ray.exceptions
        try:
            kind, *content = self._ray.get(reference)
        except errors.OutOfMemoryError as error:
            return TrialError("oom", f"A node ran out of memory: {first_line(error)}.")
        except errors.RayTaskError as error:
            return TrialError("crashed", first_line(error.cause or error))
        except errors.RayError as error:
            return TrialError("worker_died", f"A worker or node was lost: {type(error).__name__}.")
        except ConnectionError as error:
            raise _gone(error) from error
        if kind == "refused":
            raise InputError(*content)
        if kind == "hopeless":
            return HopelessError(*content)
        return content[0] if kind == "measured" else TrialError(*content)

    def _cancel(self, reference: Any) -> None:
        self._ray.cancel(reference, force=True)


def check_address(address: str | None) -> None:
    """Refuse a cluster that others can reach and nothing protects: it runs whatever it is sent.

    Args:
        address: `host:port`, or None for a cluster of our own.

    Raises:
        InputError: If it has not that form, or is not this machine's and Ray's token
            authentication is off.
    """
    if address is None:
        return
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdecimal() or not host:
        raise InputError(f"`ray_address` must look like host:port, but got {address!r}.")
    if host.strip("[]") not in _LOOPBACK and os.environ.get("RAY_AUTH_MODE") != "token":
        raise InputError(
            f"A Ray cluster on another machine ({address}) must have token authentication, which "
            "is off.",
            "Start it with RAY_AUTH_MODE=token, and set that and RAY_AUTH_TOKEN here, too.",
        )


def _import_ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise InputError(
            f"The executor 'ray' needs Ray: {first_line(error)}.",
            "pip install 'autocompress[ray]'",
        ) from error


def _connect(ray: Any, address: str | None, *, n_cpus: int) -> None:
    """Join a cluster, or start one that only this machine can reach."""
    if address is not None:
        _check_reachable(address)
    own = {"_node_ip_address": "127.0.0.1", "num_cpus": n_cpus, "include_dashboard": False}
    is_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address="local" if address is None else address,
            log_to_driver=False,
            logging_level="ERROR",
            configure_logging=False,
            **(own if address is None else {}),
        )
    except (ray.exceptions.RayError, ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(
            f"The Ray cluster {address or 'of this machine'} cannot be used: {first_line(error)}.",
            "See that it runs (`ray status`), and that its version of Ray is the one here.",
        ) from error
    finally:
        if is_main:
            signal.signal(signal.SIGTERM, handler)  # Ray's would end us with a code of its own


def _check_reachable(address: str) -> None:
    """Say at once what Ray would take minutes to say."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_S).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"The Ray cluster {address} cannot be reached: {first_line(error)}.",
            "See that it runs (`ray status`), and that the port is that of its head node.",
        ) from error


def _gone(error: Exception) -> AutocompressError:
    return AutocompressError(
        f"The Ray cluster is gone: {first_line(error)}.",
        "Nothing is lost: start it again and repeat the command.",
    )


def _work(spec: WorkerSpec, job: EvaluationJob | ProbeJob) -> tuple[Any, ...]:
    """Run a job on a node; errors travel as plain values, whatever the versions of their classes.

    Returns:
        A word for what happened, and what belongs to it.
    """
    try:
        evaluator = _warm_evaluator(spec)
    except AutocompressError as error:
        return "refused", error.message, error.hint
    try:
        if isinstance(job, ProbeJob):
            return "measured", probe_job(evaluator, job)
        with tempfile.TemporaryDirectory() as folder:
            keep = Path(folder) / job.keep.name
            here = dataclasses.replace(job, keep=keep)
            measurement = evaluate_job(evaluator, 0, here, lambda number, stage, share: None)
            return "measured", (measurement, keep.read_bytes())
    except HopelessError as error:
        return "hopeless", error.message, error.figures
    except TrialError as error:
        return "failed", error.reason, error.message


_warm: dict[str, Evaluator] = {}


def _warm_evaluator(spec: WorkerSpec) -> Evaluator:
    """The evaluator of this process: Ray uses a process for one task after the other."""
    key = json.dumps([spec.task, dict(spec.arguments), repr(spec.settings), spec.model])
    if key not in _warm:
        _warm.clear()
        _warm[key] = make_evaluator(spec)
    return _warm[key]
