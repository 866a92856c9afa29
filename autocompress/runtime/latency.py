"""Time of one inference, candidate against baseline, taken interleaved."""

import gc
import hashlib
import json
import math
import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock
import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from autocompress.runtime.latency_cache import Latency, LatencyCache
from autocompress.runtime.onnxruntime import Inputs, make_session
from autocompress.runtime.structure import structure_digest
from autocompress.tasks.model_cache import cache_folder

_BLOCK_NS = 2_000_000  # ten thousand times the timer's resolution
_WARM_UP_NS = 30_000_000
_PATIENCE_S = 120.0
_MIN_ROUNDS, _MAX_ROUNDS = 7, 500


def measure_latency(
    candidate: onnx.ModelProto,
    baseline: onnx.ModelProto,
    example: Inputs,
    *,
    threads: int = 1,
    budget_s: float = 0.8,
    cache: LatencyCache | None = None,
    fresh: bool = False,
) -> Latency:
    """Time a candidate and its baseline in ONNX Runtime, block by block in turns.

    Whatever slows the machine down for a while slows both, and medians forget the rest. Processes
    that time at the same time take turns.

    Args:
        candidate: Graph to time.
        baseline: The untouched model's graph, with the same inputs.
        example: Inputs of one inference, one array per graph input.
        threads: Threads inside an operator.
        budget_s: Time to spend on timed inferences; slow graphs may take longer, since each is
            timed at least seven times.
        cache: Where an earlier measurement of the same structures on this machine is looked up,
            and this one is kept; None for nowhere.
        fresh: Measure even if the cache has an entry, and leave the cache as it is.

    Raises:
        TrialError: With reason `runtime` if the runtime refuses a graph.
    """
    key = ""
    if cache is not None and not fresh:
        key = _key(candidate, baseline, example, threads)
        known = cache.get(key)
        if known is not None:
            return known
    latency = _measure(candidate, baseline, example, threads, budget_s)
    return latency if cache is None or fresh else cache.put(key, latency)


def _measure(
    candidate: onnx.ModelProto,
    baseline: onnx.ModelProto,
    example: Inputs,
    threads: int,
    budget_s: float,
) -> Latency:
    sessions = [make_session(model, threads) for model in (candidate, baseline)]
    feeds = [
        {value.name: x for value, x in zip(s.get_inputs(), example, strict=True)} for s in sessions
    ]
    pairs = list(zip(sessions, feeds, strict=True))
    with _nobody_else_timing(), _no_garbage_collection():
        n_runs = [max(1, math.ceil(_BLOCK_NS / _warm_up(*pair))) for pair in pairs]
        blocks_ns: list[list[float]] = [[], []]
        deadline = time.perf_counter_ns() + int(budget_s * 1e9)
        while len(blocks_ns[0]) < _MIN_ROUNDS or (
            time.perf_counter_ns() < deadline and len(blocks_ns[0]) < _MAX_ROUNDS
        ):
            for which, pair in enumerate(pairs):
                blocks_ns[which].append(_time_block(*pair, n_runs[which]))
    low, median, high = np.percentile(np.array(blocks_ns[0]) / 1e6, [25, 50, 75])
    return Latency(
        median_ms=float(median),
        spread_ms=float(high - low),
        baseline_median_ms=float(np.median(blocks_ns[1]) / 1e6),
        ratio=float(np.median(np.array(blocks_ns[0]) / np.array(blocks_ns[1]))),
        n_runs=n_runs[0] * len(blocks_ns[0]),
    )


def _warm_up(session: ort.InferenceSession, feed: Mapping[str, NDArray[np.generic]]) -> float:
    """Run until caches, allocators and clocks have settled; nanoseconds of a fast inference."""
    fastest, spent = math.inf, 0.0
    while spent < _WARM_UP_NS:
        taken = _time_block(session, feed, 1)
        fastest, spent = min(fastest, taken), spent + taken
    return fastest


def _time_block(
    session: ort.InferenceSession, feed: Mapping[str, NDArray[np.generic]], n_runs: int
) -> float:
    """Nanoseconds of one inference, over a block of them."""
    start = time.perf_counter_ns()
    for _ in range(n_runs):
        session.run(None, feed)
    return (time.perf_counter_ns() - start) / n_runs


@contextmanager
def _nobody_else_timing() -> Iterator[None]:
    """Wait until no other process of this user on this machine is timing anything.

    One that takes very long is stuck and not waited for; nor is a folder where nothing can be
    locked.
    """
    lock = filelock.FileLock(cache_folder() / "timing.lock", timeout=_PATIENCE_S)
    with suppress(OSError, NotImplementedError, filelock.Timeout):
        cache_folder().mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _key(
    candidate: onnx.ModelProto, baseline: onnx.ModelProto, example: Inputs, threads: int
) -> str:
    parts = [
        structure_digest(candidate),
        structure_digest(baseline),
        [[list(x.shape), str(x.dtype)] for x in example],
        threads,
        f"onnxruntime {ort.__version__}",
        _cpu_model(),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _cpu_model() -> str:
    """The processor's name, as far as the system tells it, and how many cores there are."""
    names: list[str] = []
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        pass
    name = names[0] if names else platform.processor()
    return f"{platform.machine()} {name} x{os.cpu_count()}"
