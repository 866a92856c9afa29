"""Post-training quantization of a file of somebody else: in a process of its own, with limits.

The main module of that process: `python -m autocompress.export.quantize_process`.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from autocompress.errors import AutocompressError, TrialError
from autocompress.runtime.child_process import ChildProcess, Tell, serve
from autocompress.runtime.process import PATIENCE_S

_TELL_S: Final = 0.2  # between two words


def quantize_apart(
    path: Path,
    data: Path,
    output: Path,
    *,
    patience_s: float = PATIENCE_S,
    memory_bytes: int | None = None,
    on_step: Callable[[str], None] = lambda step: None,
    **options: Any,
) -> dict[str, Any]:
    """Quantize a file as `quantize_file` does, and be neither hung nor filled by it.

    Args:
        path: The file.
        data: Examples.
        output: Folder to write to.
        patience_s: Seconds that one run of the model may take, or whatever lies between two runs.
        memory_bytes: Most memory; None for 80 % of what is free.
        on_step: Told what is being done, in words.
        options: More arguments of `quantize_file`.

    Returns:
        `PostTraining.to_json()`.

    Raises:
        InputError: If the file or the data cannot be used.
        AutocompressError: If no form keeps the decisions, or the file hangs, takes too much memory,
            or crashes the process.
    """
    name = f"Quantizing {path}"
    with ChildProcess("autocompress.export.quantize_process", name, memory_bytes) as process:
        paths = {"path": str(path), "data": str(data), "output": str(output)}
        try:
            found: dict[str, Any] = process.ask(
                "quantize", patience_s, on_step, **paths, options=options
            )
        except TrialError as error:
            if error.reason in ("runtime_crash", "memory"):
                hint = "Raise `timeout` or `memory` if the model is that large."
                raise AutocompressError(error.message, hint) from error
            raise AutocompressError(f"{name} failed: {error.message}") from error
    return found


class _Quantizer:
    """What that process does; tells steps not too often, however fast the model is."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._told = 0.0

    def quantize(
        self, path: str, data: str, output: str, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        from autocompress.export.post_training import quantize_file

        done = quantize_file(Path(path), Path(data), Path(output), on_step=self._on_step, **options)
        return done.to_json()

    def _on_step(self, step: str) -> None:
        if time.monotonic() >= self._told + _TELL_S:
            self._told = time.monotonic()
            self._tell(step)


if __name__ == "__main__":
    serve(_Quantizer)
