"""Time files that ship, side by side, each by a runtime of its own or by several."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from autocompress.errors import AutocompressError, InputError, TrialError, unknown_name
from autocompress.export.random_inputs import random_inputs
from autocompress.measurement import LEAST_NOISE
from autocompress.packing.packed import read_packed
from autocompress.runtime.base import Runtime
from autocompress.runtime.interleaved import median_interval, time_in_turns
from autocompress.runtime.process import RunningModel
from autocompress.runtime.registry import find_runtime, runtimes_for

if TYPE_CHECKING:
    import onnx


def size_of(path: Path) -> int:
    """Bytes of a file, and of those that hold its weights: OpenVINO's, and external data of ONNX.

    What is no ONNX graph in spite of its name, and weights that are missing, count for nothing.
    """
    size = path.stat().st_size
    for weights in _weights(path):
        with contextlib.suppress(OSError):  # a name that no file can have
            size += weights.stat().st_size if weights.is_file() else 0
    return size


def _weights(path: Path) -> set[Path]:
    if path.suffix == ".xml":
        return {path.with_suffix(".bin")}
    if path.suffix != ".onnx":
        return set()
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    from autocompress.onnx_graph.messages import tensors_in

    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError:
        return set()
    return {path.parent / name for tensor in tensors_in(model) for name in _locations(tensor)}


def _locations(tensor: "onnx.TensorProto") -> Iterator[str]:
    if tensor.data_location == tensor.EXTERNAL:
        yield from (entry.value for entry in tensor.external_data if entry.key == "location")


Verdict = Literal["reference", "faster", "slower", "no measurable difference", "failed"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BenchRow:
    """One file in one runtime.

    Attributes:
        path: The file.
        runtime: Name of who ran it.
        size_bytes: Its size.
        median_ms: Median time of one inference.
        spread_ms: Interquartile range over blocks of inferences.
        speedup: How many times faster than the first file: the median over pairs of neighbouring
            blocks, so that what slows the machine down for a while cancels out.
        speedup_low: Lower end of the 95 % confidence interval of that median.
        speedup_high: Upper end.
        n_runs: Inferences that were timed.
        peak_memory_bytes: Most memory that loading and running it took, beyond the runtime's own.
        error: Why it does not run; then there are no figures.
        verdict: Against the first file; a difference counts if the whole interval lies beyond the
            noise.
    """

    path: Path
    runtime: str
    size_bytes: int
    verdict: Verdict
    median_ms: float | None = None
    spread_ms: float | None = None
    speedup: float | None = None
    speedup_low: float | None = None
    speedup_high: float | None = None
    n_runs: int = 0
    peak_memory_bytes: int | None = None
    error: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Files side by side.

    Attributes:
        rows: In the order of the files.
        noise: By how much, as a share, the first file differed from itself, opened and timed a
            second time: the farther end of the interval, at least 2 %. Where a session's memory
            happens to lie is worth that much.
    """

    rows: tuple[BenchRow, ...]
    noise: float


def bench(
    files: Sequence[Path],
    *,
    runtimes: Sequence[str] = (),
    threads: int = 1,
    batch_size: int = 1,
    shapes: Mapping[str, Sequence[int]] | None = None,
    seconds: float = 1.0,
    seed: int = 0,
) -> Bench:
    """Time files block by block in turns, on random inputs (integers: zeros).

    Each file runs in a process of its own, so that one that crashes its runtime spoils no other's
    row.

    Args:
        files: ONNX, packed, OpenVINO or ExecuTorch files; the first is what the others are compared
            with.
        runtimes: Who runs them: a file that several of them open gets a row for each. Empty for the
            usual one of each file.
        threads: Threads inside an operator, >= 1.
        batch_size: Examples per inference, for inputs whose first dimension is free, >= 1; see
            `random_inputs`.
        shapes: Input name -> shape, for inputs with other free dimensions; not every file needs to
            have each.
        seconds: Time to spend on each file, > 0.
        seed: Of the inputs.

    Raises:
        InputError: If a file cannot be read or nothing opens it, if no file has an input of a name
            in `shapes`, or if the first one does not run: it names the file.
    """
    for name in runtimes:
        find_runtime(name)
    wanted = [
        (path, runtime) for path in map(_checked, files) for runtime in runtimes_for(path, runtimes)
    ]
    shapes = shapes or {}
    with ExitStack() as stack:
        opened = [_opened(stack, runtime, path, threads) for path, runtime in (wanted[0], *wanted)]
        _check_names(shapes, opened)
        opened = [_fed(model, batch_size, shapes, seed) for model in opened]
        again = opened.pop(0)
        if isinstance(again, AutocompressError):
            hint = "Say what it takes with `batch_size` or `shape`."
            raise InputError(
                f"{files[0]}: {again.message}",
                again.hint if isinstance(again, InputError) else hint,
            ) from again
        running = [model for model in opened if isinstance(model, RunningModel)]
        timed = time_in_turns([*running, again], seconds * (len(running) + 1))
        peaks = [model.peak_memory_bytes() for model in running]
    *columns, second = timed.blocks_ms.T
    _, low, high = median_interval(columns[0] / second)
    noise = max(LEAST_NOISE, 1.0 / low - 1.0, high - 1.0)
    figures = iter(zip(columns, timed.n_runs[:-1], peaks, strict=True))
    rows = [
        _failed_row(path, runtime, model)
        if isinstance(model, AutocompressError)
        else _row(path, runtime, columns[0], noise, *next(figures))
        for (path, runtime), model in zip(wanted, opened, strict=True)
    ]
    rows[0] = dataclasses.replace(rows[0], verdict="reference")
    return Bench(rows=tuple(rows), noise=noise)


def _checked(path: Path) -> Path:
    if not path.is_file():
        raise InputError(f"The file {path} must exist.", "Give .onnx, .acz, .xml or .pte files.")
    if path.suffix == ".acz":
        read_packed(path)  # whose messages name the file, and what is wrong with it
    return path


def _opened(
    stack: ExitStack, runtime: Runtime, path: Path, threads: int
) -> RunningModel | AutocompressError:
    """A file that runs until the stack is closed, or why it does not."""
    try:
        return stack.enter_context(RunningModel(runtime, path, threads))
    except TrialError as error:
        return error


def _check_names(
    shapes: Mapping[str, Sequence[int]], opened: Sequence[RunningModel | AutocompressError]
) -> None:
    """Complain about a shape of no file's input, unless that of one that could not be opened."""
    running = [model for model in opened if isinstance(model, RunningModel)]
    known = {spec.name for model in running for spec in model.inputs}
    if len(running) == len(opened):
        for name in sorted(shapes.keys() - known):
            raise unknown_name("input", name, known)


def _fed(
    model: RunningModel | AutocompressError,
    batch_size: int,
    shapes: Mapping[str, Sequence[int]],
    seed: int,
) -> RunningModel | AutocompressError:
    """A file that ran once on inputs to be timed on, or why it did not."""
    if isinstance(model, AutocompressError):
        return model
    try:
        model.feed(random_inputs(model.inputs, batch_size, shapes, seed))
    except (InputError, TrialError) as error:
        return error
    return model


def _row(
    path: Path,
    runtime: Runtime,
    reference: NDArray[np.float64],
    noise: float,
    own: NDArray[np.float64],
    n_runs: int,
    peak: int | None,
) -> BenchRow:
    low_ms, median_ms, high_ms = np.percentile(own, [25, 50, 75])
    speedup, low, high = median_interval(reference / own)
    verdict: Verdict = "no measurable difference"
    if low > 1.0 + noise or high < 1.0 / (1.0 + noise):
        verdict = "faster" if low > 1.0 else "slower"
    return BenchRow(
        path=path,
        runtime=runtime.name,
        size_bytes=size_of(path),
        median_ms=float(median_ms),
        spread_ms=float(high_ms - low_ms),
        speedup=speedup,
        speedup_low=low,
        speedup_high=high,
        n_runs=n_runs * len(own),
        peak_memory_bytes=peak,
        verdict=verdict,
    )


def _failed_row(path: Path, runtime: Runtime, error: AutocompressError) -> BenchRow:
    return BenchRow(
        path=path,
        runtime=runtime.name,
        size_bytes=size_of(path),
        verdict="failed",
        error=str(error),
    )
