"""Milliseconds that compare: ratios to the baseline, on the scale of one baseline figure."""

import dataclasses

from autocompress.runtime.base import Arrays, Shipment
from autocompress.runtime.latency import measure_latency
from autocompress.runtime.latency_cache import Latency, LatencyCache
from autocompress.runtime.structure import structure_digest
from autocompress.runtime.table import find_runtime


class LatencyScale:
    """Times candidates against the untouched model.

    A machine is faster at one time than at another, so milliseconds taken at different times
    do not compare; ratios to a baseline timed in between do. All milliseconds here are such a
    ratio times one and the same figure of the baseline.

    Args:
        baseline: The untouched model as the runtime runs it.
        example: Inputs of one inference, see `timed_inputs`.
        runtime: Name of the runtime.
        threads: Threads of the runtime.

    Raises:
        InputError: If there is no such runtime, or it is not installed.
    """

    def __init__(self, baseline: Shipment, example: Arrays, *, runtime: str, threads: int) -> None:
        self._baseline = baseline
        self._example = example
        self._runtime = find_runtime(runtime)
        self._threads = threads
        self._reference: Latency | None = None

    def measure(self, candidate: Shipment, *, fresh: bool = False) -> Latency:
        """Time a candidate.

        Args:
            candidate: What to time.
            fresh: Measure anew; otherwise a structure that this machine has timed is not timed
                again, so that equal structures have equal figures and searches can be repeated.
        """
        if self._reference is None or fresh:
            self._reference = self._interleaved(self._baseline, fresh)
        reference_ms = self._reference.median_ms
        if structure_digest(candidate.graph.model) == structure_digest(self._baseline.graph.model):
            measured = dataclasses.replace(self._reference, ratio=1.0)  # its interval is the noise
        else:
            measured = self._interleaved(candidate, fresh)
        return dataclasses.replace(
            measured,
            median_ms=measured.ratio * reference_ms,
            spread_ms=measured.spread_ms * reference_ms / measured.baseline_median_ms,
            baseline_median_ms=reference_ms,
        )

    def _interleaved(self, candidate: Shipment, fresh: bool) -> Latency:
        return measure_latency(
            candidate,
            self._baseline,
            self._example,
            runtime=self._runtime,
            threads=self._threads,
            cache=LatencyCache(),
            fresh=fresh,
        )
