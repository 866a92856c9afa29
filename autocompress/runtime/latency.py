"""Time and memory of one inference, candidate against baseline, taken interleaved."""

import dataclasses
import hashlib
import json
import logging
import math
import os
import platform
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import numpy as np

from autocompress.atomic_file import scratch_folder
from autocompress.environment import processor_name
from autocompress.onnx_graph.structure import structure_digest
from autocompress.runtime.base import Arrays, Runtime, Shipment
from autocompress.runtime.interleaved import Timed, median_interval, time_in_turns
from autocompress.runtime.process import RunningModel
from autocompress.runtime.registry import versions_of
from autocompress.tasks.model_cache import cache_folder

_N_STARTS: Final = 3
# End over beginning of an interval: of 87 on a busy machine half were below 1.1, a tenth above 1.5.
_QUIET: Final = 1.25
_MOST_REPEATS: Final = 2
_LEAST_ROUNDS: Final = 3  # after each start
logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Time of one inference in milliseconds.

    Attributes:
        median_ms: Median over blocks of inferences.
        spread_ms: Interquartile range over those blocks.
        baseline_median_ms: The baseline's median, its blocks taken between the candidate's.
        ratio: Candidate over baseline: the median over pairs of neighbouring blocks, and of those
            over several starts of the processes. What drifts for longer than a block cancels out,
            so this compares across measurements where milliseconds do not.
        ratio_low: Least lower end of the 95 % confidence intervals of the starts' medians.
        ratio_high: Greatest upper end.
        n_runs: Inferences of the candidate that were timed.
        peak_memory_bytes: Most memory that loading and running the candidate took, beyond the
            runtime's own; None where the system does not tell.
    """

    median_ms: float
    spread_ms: float
    baseline_median_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float
    n_runs: int
    peak_memory_bytes: int | None

    @property
    def low_ms(self) -> float:
        """Lower end of the interval, on the scale of the baseline's median."""
        return self.ratio_low * self.baseline_median_ms

    @property
    def high_ms(self) -> float:
        """Upper end."""
        return self.ratio_high * self.baseline_median_ms


class LatencyCache:
    """Timings on this machine by graph structure, so that equal structures get equal figures.

    A file of JSON lines that is only appended to. Of several entries for a key the first counts, so
    processes that measure the same at the same time agree afterwards. Damaged lines are skipped; a
    file that cannot be read or written is a cache that holds nothing.

    Args:
        path: The file; None for `latency.jsonl` in the folder that the environment variable
            AUTOCOMPRESS_CACHE names, or in the user's cache folder. It is created when needed.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = cache_folder() / "latency.jsonl" if path is None else path

    def get(self, key: str) -> Latency | None:
        """The first whole entry for `key`, or None."""
        try:
            lines = self.path.read_bytes().splitlines()
        except OSError:
            return None
        found = (_parse(line, key) for line in lines if key.encode() in line)
        return next((latency for latency in found if latency is not None), None)

    def put(self, key: str, latency: Latency) -> Latency:
        """Add an entry, and return the one that counts from now on."""
        text = json.dumps({"key": key, **dataclasses.asdict(latency)})
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:
                file.write(f"\n{text}\n".encode())  # one write; the first break ends a torn line
        except OSError as error:
            logger.warning("The latency cache %s cannot be written: %s", self.path, error)
        return self.get(key) or latency


def _parse(line: bytes, key: str) -> Latency | None:
    try:
        entry = json.loads(line)
        if entry.pop("key") != key:
            return None
        latency = Latency(**entry)
        figures = (
            *(latency.median_ms, latency.spread_ms, latency.baseline_median_ms),
            *(latency.ratio, latency.ratio_low, latency.ratio_high),
        )
        is_sound = all(math.isfinite(x) and x >= 0.0 for x in figures) and latency.median_ms > 0.0
        return latency if is_sound and latency.n_runs > 0 else None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


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
        baseline: The original model, with the same inputs.
        example: Inputs of one inference, one array per input, examples in dimension 0.
        runtime: Who runs both.
        threads: Threads inside an operator.
        budget_s: Time to spend on timed inferences; slow models may take longer, since each is
            timed at least nine times.
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
        latency = _quietest(lambda: time_files(own, base, example, runtime, threads, budget_s))
    return latency if cache is None or fresh else cache.put(key, latency)


def _quietest(measure: Callable[[], Latency]) -> Latency:
    """A measurement that neighbours hardly disturbed, or the least disturbed of three.

    Where a machine is busy the ratio's interval is wide, and what is kept is kept for good.
    """
    best = measure()
    for _ in range(_MOST_REPEATS):
        if _width(best) <= _QUIET:
            break
        best = min(best, measure(), key=_width)
    return best


def _width(latency: Latency) -> float:
    return latency.ratio_high / max(latency.ratio_low, 1e-9)


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

    They are started three times: where a process puts its memory changes how fast it is, by more
    than its blocks differ. The ratio is the median of the starts, its interval holds all of theirs.

    Args:
        candidate: A file of the runtime.
        baseline: Another one, with the same inputs.
        example: Inputs of one inference.
        runtime: Who runs both.
        threads: Threads inside an operator.
        budget_s: Seconds to spend on timed inferences.
    """
    starts = [
        _time_once(candidate, baseline, example, runtime, threads, budget_s / _N_STARTS)
        for _ in range(_N_STARTS)
    ]
    own, base = np.concatenate([timed.blocks_ms for timed, _ in starts]).T
    first, median, third = np.percentile(own, [25, 50, 75])
    ratios, lows, highs = zip(
        *(median_interval(t.blocks_ms[:, 0] / t.blocks_ms[:, 1]) for t, _ in starts), strict=True
    )
    peaks = [peak for _, peak in starts if peak is not None]
    return Latency(
        median_ms=float(median),
        spread_ms=float(third - first),
        baseline_median_ms=float(np.median(base)),
        ratio=float(np.median(ratios)),
        ratio_low=min(lows),
        ratio_high=max(highs),
        n_runs=sum(timed.n_runs[0] * len(timed.blocks_ms) for timed, _ in starts),
        peak_memory_bytes=max(peaks, default=None),
    )


def _time_once(
    candidate: Path,
    baseline: Path,
    example: Arrays,
    runtime: Runtime,
    threads: int,
    budget_s: float,
) -> tuple[Timed, int | None]:
    """Both files in processes of their own; their times, and the candidate's peak memory."""
    with ExitStack() as stack:
        models = [
            stack.enter_context(RunningModel(runtime, path, threads))
            for path in (candidate, baseline)
        ]
        for model in models:
            model.feed(example)
        timed = time_in_turns(models, budget_s, least_rounds=_LEAST_ROUNDS)
        return timed, models[0].peak_memory_bytes()


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
        f"{platform.machine()} {processor_name()} x{os.cpu_count()}",
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
