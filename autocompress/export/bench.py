"""Time files that ship, side by side: ONNX and packed models, in ONNX Runtime."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from autocompress.errors import AutocompressError, InputError, TrialError, first_line, unknown_name
from autocompress.packing.packed import read_packed
from autocompress.runtime.interleaved import Pair, median_interval, time_in_turns
from autocompress.runtime.onnxruntime import make_session

_TYPES: Final = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}

_LEAST_NOISE: Final = 0.02

Verdict = Literal["reference", "faster", "slower", "no measurable difference"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BenchRow:
    """One file.

    Attributes:
        path: The file.
        size_bytes: Its size.
        median_ms: Median time of one inference.
        spread_ms: Interquartile range over blocks of inferences.
        speedup: How many times faster than the first file: the median over pairs of neighbouring
            blocks, so that what slows the machine down for a while cancels out.
        speedup_low: Lower end of the 95 % confidence interval of that median.
        speedup_high: Upper end.
        n_runs: Inferences that were timed.
        verdict: Against the first file; a difference counts if the whole interval lies beyond the
            noise.
    """

    path: Path
    size_bytes: int
    median_ms: float
    spread_ms: float
    speedup: float
    speedup_low: float
    speedup_high: float
    n_runs: int
    verdict: Verdict


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
    threads: int = 1,
    batch_size: int = 1,
    shapes: Mapping[str, Sequence[int]] | None = None,
    seconds: float = 1.0,
    seed: int = 0,
) -> Bench:
    """Time files block by block in turns, on random inputs (integers: zeros).

    Args:
        files: `.onnx` or `.acz`; the first is what the others are compared with.
        threads: Threads inside an operator, >= 1.
        batch_size: Examples per inference, for inputs whose first dimension is free, >= 1.
        shapes: Input name -> shape, for inputs with other free dimensions.
        seconds: Time to spend on each file, > 0.
        seed: Of the inputs.

    Raises:
        InputError: If a file cannot be read or run, or takes no such batch; names it.
    """
    again, *pairs = (
        _opened(path, threads, batch_size, shapes or {}, seed) for path in (files[0], *files)
    )
    timed = time_in_turns([*pairs, again], seconds * (len(pairs) + 1))
    *columns, second = timed.blocks_ms.T
    _, low, high = median_interval(columns[0] / second)
    noise = max(_LEAST_NOISE, 1.0 / low - 1.0, high - 1.0)
    rows = [
        _row(path, own, columns[0], n_runs, noise)
        for path, own, n_runs in zip(files, columns, timed.n_runs[:-1], strict=True)
    ]
    rows[0] = dataclasses.replace(rows[0], verdict="reference")
    return Bench(rows=tuple(rows), noise=noise)


def _row(
    path: Path,
    own: NDArray[np.float64],
    reference: NDArray[np.float64],
    n_runs: int,
    noise: float,
) -> BenchRow:
    low_ms, median_ms, high_ms = np.percentile(own, [25, 50, 75])
    speedup, low, high = median_interval(reference / own)
    verdict: Verdict = "no measurable difference"
    if low > 1.0 + noise or high < 1.0 / (1.0 + noise):
        verdict = "faster" if low > 1.0 else "slower"
    return BenchRow(
        path=path,
        size_bytes=path.stat().st_size,
        median_ms=float(median_ms),
        spread_ms=float(high_ms - low_ms),
        speedup=speedup,
        speedup_low=low,
        speedup_high=high,
        n_runs=n_runs * len(own),
        verdict=verdict,
    )


def _opened(
    path: Path,
    threads: int,
    batch_size: int,
    shapes: Mapping[str, Sequence[int]],
    seed: int,
) -> Pair:
    """A session, and inputs it has run once."""
    if not path.is_file():
        raise InputError(f"The file {path} must exist.", "Give .onnx or .acz files.")
    try:
        model = read_packed(path).graph if path.suffix == ".acz" else path
        session = make_session(model, threads)
    except (TrialError, OSError) as error:
        raise InputError(f"{path}: {first_line(error)}.") from error
    random = np.random.default_rng(seed)
    wanted = session.get_inputs()
    for name in sorted(set(shapes) - {value.name for value in wanted}):
        raise unknown_name("input", name, (value.name for value in wanted))
    feed = {value.name: _input(path, value, batch_size, shapes, random) for value in wanted}
    try:
        session.run(None, feed)
    except Exception as error:  # the runtime raises a dozen classes that share no base
        sizes = ", ".join(f"{name} {list(x.shape)}" for name, x in feed.items())
        raise InputError(
            f"{path} does not run on inputs of {sizes}: {first_line(error)}.",
            "Say what it takes with --batch or --shape.",
        ) from error
    return session, feed


def _input(
    path: Path,
    value: ort.NodeArg,
    batch_size: int,
    shapes: Mapping[str, Sequence[int]],
    random: np.random.Generator,
) -> NDArray[np.generic]:
    kind = _TYPES.get(value.type)
    if kind is None:
        raise AutocompressError(f"{path}: the input {value.name!r} is a {value.type}.")
    given = shapes.get(value.name) or _shape(path, value, batch_size)
    if np.issubdtype(kind, np.floating):
        return random.standard_normal(given).astype(kind)
    return np.zeros(given, kind)


def _shape(path: Path, value: ort.NodeArg, batch_size: int) -> list[int]:
    """Shape of an input whose dimensions are fixed, but for the first perhaps."""
    sizes = list(value.shape)
    is_batched = bool(sizes) and not isinstance(sizes[0], int)
    if is_batched:
        sizes[0] = batch_size
    if not all(isinstance(size, int) for size in sizes):
        raise InputError(
            f"{path}: the input {value.name!r} is of shape {value.shape}, which is not fixed.",
            f"Say which to time, such as --shape {value.name}=1,3,32,32",
        )
    if sizes and not is_batched and sizes[0] != batch_size:
        raise InputError(
            f"{path}: the input {value.name!r} is of shape {value.shape}: a batch of {batch_size} "
            "cannot be asked for.",
            f"Give --batch {sizes[0]}, or export it with a free batch.",
        )
    return sizes
