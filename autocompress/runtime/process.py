"""A file that runs in a process of its own, seen from outside."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from autocompress.atomic_file import scratch_folder
from autocompress.errors import TrialError
from autocompress.runtime.base import Array, Arrays, InputSpec, Runtime

PATIENCE_S = 600.0
"""Seconds for one command, or one batch: what takes longer to load or to run is given up."""


class RunningModel:
    """A file opened by a runtime in a process of its own.

    A runtime that crashes or hangs cannot hurt this process, files do not share memory or threads,
    and the most memory that one takes can be told. Close it, or use it as a context manager.

    Args:
        runtime: Who runs it.
        path: The file.
        threads: Threads inside an operator; the process stays on as many cores.

    Attributes:
        inputs: What the file takes.

    Raises:
        TrialError: With reason `runtime` if the runtime refuses the file, `runtime_crash` if it
            crashes or hangs.
    """

    def __init__(self, runtime: Runtime, path: Path, threads: int) -> None:
        self._name = f"{runtime.title} on {path.name}"
        self._folder = scratch_folder()
        self._words = (Path(self._folder.name) / "stderr").open("w+b")
        # -P: what lies in the current folder, a bundle perhaps, is not imported
        command = [sys.executable, "-P", "-m", "autocompress.runtime.child"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._words, text=True
        )
        try:
            found = self._ask(
                "open", runtime=runtime.name, path=str(path.absolute()), threads=threads
            )
        except BaseException:
            self.close()
            raise
        self.inputs = tuple(
            InputSpec(name=i["name"], shape=tuple(i["shape"]), dtype=i["dtype"]) for i in found
        )

    def feed(self, arrays: Sequence[Array]) -> None:
        """Set the inputs that it is timed on, and run them once.

        Raises:
            TrialError: If it does not run on them.
        """
        self._ask("feed", paths=self._saved(arrays))

    def time_block(self, n_runs: int) -> float:
        """Nanoseconds of one inference: the median of a block of them."""
        return float(self._ask("block", n_runs=n_runs))

    def predict(self, arrays: Arrays, batch_size: int) -> Array:
        """First output for all examples, computed in batches of at most so many.

        Args:
            arrays: One array per input, examples in dimension 0, at least one.
            batch_size: Examples per call.
        """
        output = Path(self._folder.name) / "output.npy"
        n_batches = -(-len(arrays[0]) // batch_size)
        self._ask(
            "predict",
            PATIENCE_S * n_batches,
            paths=self._saved(arrays),
            batch_size=batch_size,
            output=str(output),
        )
        found: Array = np.load(output, allow_pickle=False)
        return found

    def peak_memory_bytes(self) -> int | None:
        """Most memory that loading and running took so far, beyond the runtime's own; or None."""
        found = self._ask("peak")
        return None if found is None else int(found)

    def close(self) -> None:
        """End the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # it was in the middle of a line
                    continue
        try:
            self._process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._words.close()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process."""
        self.close()

    def _saved(self, arrays: Sequence[Array]) -> list[str]:
        paths = [str(Path(self._folder.name) / f"input_{i}.npy") for i in range(len(arrays))]
        for path, array in zip(paths, arrays, strict=True):
            np.save(path, array, allow_pickle=False)
        return paths

    def _ask(self, command: str, patience_s: float | None = None, **arguments: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(json.dumps({"do": command, **arguments}), file=self._process.stdin, flush=True)
            patience_s = patience_s or PATIENCE_S
            ready, _, _ = select.select([self._process.stdout], [], [], patience_s)
            line = self._process.stdout.readline() if ready else None
        except BrokenPipeError:
            line = ""
        if line is None:
            self._process.kill()
            raise TrialError("runtime_crash", f"{self._name} hangs: nothing in {patience_s:.0f} s.")
        if not line:
            raise TrialError("runtime_crash", f"{self._name} crashed: {self._end()}.")
        answer = json.loads(line)
        if "error" in answer:
            reason, message = answer["error"]
            raise TrialError(reason, f"{self._name}: {message}")
        return answer["ok"]

    def _end(self) -> str:
        """How the process ended, and the last it said."""
        code = self._process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self._words.seek(max(0, self._words.seek(0, os.SEEK_END) - 2000))
        words = self._words.read().decode("utf-8", "replace").strip().splitlines()
        return f"{how}, {words[-1].strip()[:200]}" if words else how
