"""The process that runs one file, told what to do by lines: `python -m autocompress.runtime.child`.

It is spoken to as `child_process` says. A runtime that crashes takes this process with it and
nothing else. Only what the runtime itself needs is imported.
"""

import gc
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autocompress.errors import TrialError
from autocompress.runtime.base import Array, OpenedModel
from autocompress.runtime.child_process import serve
from autocompress.runtime.registry import find_runtime


class _Child:
    """One opened file, and the inputs it is timed on."""

    def __init__(self) -> None:
        self._model: OpenedModel | None = None
        self._feed: list[Array] = []
        self._idle_bytes = 0

    def open(self, runtime: str, path: str, threads: int) -> list[dict[str, Any]]:
        """Load a file on as many cores as there are threads; what it takes."""
        _pin(threads)
        found = find_runtime(runtime)
        found.load()
        self._idle_bytes = _reset_peak()
        self._model = found.open(Path(path), threads)
        return [
            {"name": spec.name, "shape": list(spec.shape), "dtype": spec.dtype}
            for spec in self._model.inputs
        ]

    def feed(self, paths: list[str]) -> None:
        """Take inputs to be timed on, and run them once."""
        self._feed = [np.load(path, allow_pickle=False) for path in paths]
        self._run(self._feed)

    def block(self, n_runs: int) -> float:
        """Nanoseconds of one inference: the median of a block.

        The first ones after another process had the processor find its caches empty.
        """
        assert self._model is not None
        run, feed = self._model.run, self._feed
        times = []
        gc.disable()
        for _ in range(n_runs):
            start = time.perf_counter_ns()
            run(feed)
            times.append(time.perf_counter_ns() - start)
        gc.enable()
        return statistics.median(times)

    def predict(self, paths: list[str], batch_size: int, output: str) -> None:
        """Write the first output for all examples, computed in batches of at most so many."""
        arrays = [np.load(path, mmap_mode="r", allow_pickle=False) for path in paths]
        parts = [
            np.array(self._run([np.ascontiguousarray(x[i : i + batch_size]) for x in arrays])[0])
            for i in range(0, len(arrays[0]), batch_size)
        ]
        np.save(output, np.concatenate(parts), allow_pickle=False)

    def peak(self) -> int | None:
        """Most bytes that loading and running took, beyond what the runtime alone takes."""
        peak = _resident("VmHWM")
        return None if peak is None else max(0, peak - self._idle_bytes)

    def _run(self, arrays: Sequence[Array]) -> list[Array]:
        assert self._model is not None
        try:
            return self._model.run(arrays)
        except TrialError as error:
            shapes = ", ".join(str(list(x.shape)) for x in arrays)
            raise TrialError(
                error.reason, f"it does not run on inputs of {shapes}: {error.message}"
            ) from error


def _pin(threads: int) -> None:
    """Stay on the first cores of those allowed: a process that moves finds its caches empty."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        if threads <= len(cores):
            os.sched_setaffinity(0, cores[:threads])


def _reset_peak() -> int:
    """Forget the most memory that this process held so far; what it holds now, in bytes."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return _resident("VmHWM") or 0  # cannot be forgotten: it counts from there
    return _resident("VmRSS") or 0


def _resident(what: str) -> int | None:
    """A figure of this process's memory, in bytes; None where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = next((line.split() for line in lines if line.startswith(f"{what}:")), None)
    return None if found is None else int(found[1]) * 1024


if __name__ == "__main__":
    serve(lambda tell: _Child())
