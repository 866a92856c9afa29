"""Milliseconds that compare: ratios to the baseline, on the scale of one baseline figure."""

import dataclasses

import numpy as np

from autocompress.runtime.latency import measure_latency
from autocompress.runtime.latency_cache import Latency, LatencyCache
from autocompress.runtime.onnx_export import ExportedGraph
from autocompress.runtime.structure import structure_digest
from autocompress.tasks.base import Inputs


class LatencyScale:
    """Times graphs against the untouched model's.

    A machine is faster at one time than at another, so milliseconds taken at different times
    do not compare; ratios to a baseline timed in between do. All milliseconds here are such a
    ratio times one and the same figure of the baseline.

    Args:
        baseline: The untouched model as the runtime runs it.
        example_inputs: Inputs of shape (N, ...); the first example is timed.
        threads: Threads of the runtime.
    """

    def __init__(self, baseline: ExportedGraph, example_inputs: Inputs, *, threads: int) -> None:
        self._baseline = baseline
        self._example = tuple(np.ascontiguousarray(t[:1].numpy()) for t in example_inputs)
        self._threads = threads
        self._reference: Latency | None = None

    def measure(self, exported: ExportedGraph, *, fresh: bool = False) -> Latency:
        """Time a candidate's graph.

        Args:
            exported: What to time.
            fresh: Measure anew; otherwise a structure that this machine has timed is not timed
                again, so that equal structures have equal figures and searches can be repeated.
        """
        if self._reference is None or fresh:
            self._reference = self._interleaved(self._baseline, fresh)
        reference_ms = self._reference.median_ms
        if structure_digest(exported.model) == structure_digest(self._baseline.model):
            ratio, measured = 1.0, self._reference
        else:
            measured = self._interleaved(exported, fresh)
            ratio = measured.ratio
        return dataclasses.replace(
            measured,
            median_ms=ratio * reference_ms,
            spread_ms=measured.spread_ms * reference_ms / measured.baseline_median_ms,
            baseline_median_ms=reference_ms,
            ratio=ratio,
        )

    def _interleaved(self, exported: ExportedGraph, fresh: bool) -> Latency:
        return measure_latency(
            exported.model,
            self._baseline.model,
            self._example,
            threads=self._threads,
            cache=LatencyCache(),
            fresh=fresh,
        )
