"""Time of one inference, candidate against baseline, taken interleaved."""

import hashlib
import json
import os
import platform
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from autocompress.runtime.interleaved import time_in_turns
from autocompress.runtime.latency_cache import Latency, LatencyCache
from autocompress.runtime.onnxruntime import Inputs, make_session
from autocompress.runtime.structure import structure_digest


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
    timed = time_in_turns(list(zip(sessions, feeds, strict=True)), budget_s)
    own, base = timed.blocks_ms.T
    low, median, high = np.percentile(own, [25, 50, 75])
    return Latency(
        median_ms=float(median),
        spread_ms=float(high - low),
        baseline_median_ms=float(np.median(base)),
        ratio=float(np.median(own / base)),
        n_runs=timed.n_runs[0] * len(own),
    )


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
