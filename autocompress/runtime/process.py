"""A file that runs in a process of its own, seen from outside."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from autocompress.errors import TrialError
from autocompress.runtime.base import Array, Arrays, InputSpec, Runtime
from autocompress.runtime.child_process import ChildProcess

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
        launcher: Command that runs the process, such as an emulator of another processor.

    Attributes:
        inputs: What the file takes.

    Raises:
        TrialError: With reason `runtime` if the runtime refuses the file, `runtime_crash` if it
            crashes or hangs, `memory` if it takes nearly all that is free.
    """

    def __init__(
        self, runtime: Runtime, path: Path, threads: int, launcher: Sequence[str] = ()
    ) -> None:
        self._name = f"{runtime.title} on {path.name}"
        self._process = ChildProcess("autocompress.runtime.child", self._name, launcher=launcher)
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
        output = self._process.folder / "output.npy"
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
        self._process.close()

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
        paths = [str(self._process.folder / f"input_{i}.npy") for i in range(len(arrays))]
        for path, array in zip(paths, arrays, strict=True):
            np.save(path, array, allow_pickle=False)
        return paths

    def _ask(self, command: str, patience_s: float | None = None, **arguments: Any) -> Any:
        try:
            return self._process.ask(command, patience_s or PATIENCE_S, **arguments)
        except TrialError as error:
            if error.reason in ("runtime_crash", "memory"):  # it says itself who it is
                raise
            raise TrialError(error.reason, f"{self._name}: {error.message}") from error
