"""Time and memory of one inference, candidate against baseline, taken interleaved."""

import hashlib
import json
import os
import platform
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from autocompress.runtime.base import Arrays, Runtime, Shipment
from autocompress.runtime.interleaved import median_interval, time_in_turns
from autocompress.runtime.latency_cache import Latency, LatencyCache
from autocompress.runtime.process import RunningModel
from autocompress.runtime.structure import structure_digest
from autocompress.runtime.table import versions_of
from autocompress.scratch import scratch_folder


def measure_latency(
    candidate: Shipment,
    baseline: Shipment,
    example: Arrays,
    *,
    runtime: Runtime,
    threads: int = 1,
    budget_s: float = 0.8,
    cache: LatencyCache | None = None,
    fresh: bool = False,
) -> Latency:
    """Time a candidate and its baseline, block by block in turns, each in a process of its own.

    Whatever slows the machine down for a while slows both, and medians forget the rest. Processes
    that time at the same time take turns.

    Args:
        candidate: What to time.
        baseline: The untouched model, with the same inputs.
        example: Inputs of one inference, one array per input, examples in dimension 0.
        runtime: Who runs both.
        threads: Threads inside an operator.
        budget_s: Time to spend on timed inferences; slow models may take longer, since each is
            timed at least seven times.
        cache: Where an earlier measurement of the same structures on this machine is looked up,
            and this one is kept; None for nowhere.
        fresh: Measure even if the cache has an entry, and leave the cache as it is.

    Raises:
        TrialError: With reason `runtime` if the runtime refuses a model or the inputs,
            `runtime_crash` if it crashes.
    """
    key = ""
    if cache is not None and not fresh:
        key = _key(candidate, baseline, example, runtime, threads)
        known = cache.get(key)
        if known is not None:
            return known
    with scratch_folder() as scratch:
        own = _written(candidate, Path(scratch), "candidate", runtime, len(example[0]))
        base = own
        if candidate is not baseline:
            base = _written(baseline, Path(scratch), "baseline", runtime, len(example[0]))
        latency = time_files(own, base, example, runtime, threads, budget_s)
    return latency if cache is None or fresh else cache.put(key, latency)


def _written(
    shipment: Shipment, folder: Path, stem: str, runtime: Runtime, batch_size: int
) -> Path:
    """A model's file."""
    path = folder / f"{stem}{runtime.suffix}"
    runtime.write(shipment, path, batch_size)
    return path


def time_files(
    candidate: Path,
    baseline: Path,
    example: Arrays,
    runtime: Runtime,
    threads: int,
    budget_s: float = 0.8,
) -> Latency:
    """Time two files, block by block in turns; see `measure_latency`.

    Args:
        candidate: A file of the runtime.
        baseline: Another one, with the same inputs.
        example: Inputs of one inference.
        runtime: Who runs both.
        threads: Threads inside an operator.
        budget_s: Seconds to spend on timed inferences.
    """
    with ExitStack() as stack:
        models = [
            stack.enter_context(RunningModel(runtime, path, threads))
            for path in (candidate, baseline)
        ]
        for model in models:
            model.feed(example)
        timed = time_in_turns(models, budget_s)
        peak = models[0].peak_memory_bytes()
    own, base = timed.blocks_ms.T
    first, median, third = np.percentile(own, [25, 50, 75])
    ratio, low, high = median_interval(own / base)
    return Latency(
        median_ms=float(median),
        spread_ms=float(third - first),
        baseline_median_ms=float(np.median(base)),
        ratio=ratio,
        ratio_low=low,
        ratio_high=high,
        n_runs=timed.n_runs[0] * len(own),
        peak_memory_bytes=peak,
    )


def _key(
    candidate: Shipment, baseline: Shipment, example: Arrays, runtime: Runtime, threads: int
) -> str:
    parts = [
        structure_digest(candidate.graph.model),
        structure_digest(baseline.graph.model),
        [[list(x.shape), str(x.dtype)] for x in example],
        threads,
        runtime.name,
        versions_of(runtime),
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
