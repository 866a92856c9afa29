"""Run exported files where nothing of this process can help them: in a fresh one."""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autocompress.errors import AutocompressError
from autocompress.runtime.onnxruntime import make_session, predict

_BATCH_SIZE = 64


def run_fresh(model: Path, inputs: tuple[NDArray[np.generic], ...]) -> NDArray[np.generic]:
    """First output of an ONNX or packed file for all examples, computed in a new process.

    Args:
        model: `.onnx` or `.acz` file.
        inputs: One array per input, examples in dimension 0.

    Raises:
        AutocompressError: If the process fails; its last words are in the message.
    """
    with tempfile.TemporaryDirectory(prefix="autocompress-") as folder:
        paths = [Path(folder) / f"input_{i}.npy" for i in range(len(inputs))]
        for path, array in zip(paths, inputs, strict=True):
            np.save(path, array, allow_pickle=False)
        output = Path(folder) / "output.npy"
        command = [sys.executable, "-m", __name__, str(model), str(output), *map(str, paths)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise AutocompressError(f"{model.name} does not run in a fresh process: {last}")
        outputs: NDArray[np.generic] = np.load(output, allow_pickle=False)
        return outputs


def _main(model: Path, output: Path, *inputs: Path) -> None:
    arrays = tuple(np.load(path, mmap_mode="r", allow_pickle=False) for path in inputs)
    if model.suffix == ".acz":
        from autocompress.packing.packed import read_packed

        session = make_session(read_packed(model).graph, threads=1)
    else:
        session = make_session(model, threads=1)
    np.save(output, predict(session, arrays, _BATCH_SIZE), allow_pickle=False)


if __name__ == "__main__":
    _main(*map(Path, sys.argv[1:]))
