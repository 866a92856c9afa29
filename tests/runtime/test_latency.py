import functools

import numpy as np
import pytest
import torch
from torch import nn

from autocompress.compress.quantize import make_deployable
from autocompress.errors import TrialError
from autocompress.runtime import latency as latency_module
from autocompress.runtime.base import Shipment
from autocompress.runtime.latency import Latency, LatencyCache
from autocompress.runtime.onnx_export import export_onnx
from autocompress.runtime.registry import find_runtime

EXAMPLE = (np.zeros((1, 5), np.float32),)


def shipment(width=8, seed=0):
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(5, width), nn.ReLU(), nn.Linear(width, 3)).eval()
    example = (torch.zeros(2, 5),)
    graph = export_onnx(module, example, {})
    return Shipment(
        graph=graph,
        static_graph=graph,
        deployable=make_deployable(module),
        example_inputs=example,
        calibration=example,
    )


measure_latency = functools.partial(
    latency_module.measure_latency, runtime=find_runtime("onnxruntime")
)


def _latency(**figures) -> Latency:
    usual = {
        "median_ms": 1.0,
        "spread_ms": 0.0,
        "baseline_median_ms": 1.0,
        "ratio": 1.0,
        "ratio_low": 1.0,
        "ratio_high": 1.0,
        "n_runs": 1,
        "peak_memory_bytes": None,
    }
    return Latency(**{**usual, **figures})


@pytest.fixture
def counted(monkeypatch):
    """Replaces the timing by a counter: the n-th measurement takes n milliseconds."""
    calls = []

    def measure(*_):
        calls.append(None)
        n = float(len(calls))
        return _latency(median_ms=n, baseline_median_ms=n)

    monkeypatch.setattr(latency_module, "time_files", measure)
    return calls


def test_measure_latency_returns_sound_figures():
    got = measure_latency(shipment(), shipment(64), EXAMPLE, budget_s=0.05)
    assert 0 < got.median_ms < 1e3
    assert 0 < got.baseline_median_ms < 1e3
    assert got.spread_ms >= 0
    assert got.n_runs >= 7
    assert got.ratio_low <= got.ratio <= got.ratio_high
    assert got.peak_memory_bytes is None or got.peak_memory_bytes > 0


def test_measure_latency_shares_an_entry_when_only_weights_differ(counted, tmp_path):
    cache = LatencyCache(tmp_path / "latency.jsonl")
    first = measure_latency(shipment(seed=0), shipment(16, seed=0), EXAMPLE, cache=cache)
    again = measure_latency(shipment(seed=1), shipment(16, seed=1), EXAMPLE, cache=cache)
    assert first == again
    assert len(counted) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"candidate": shipment(9)},
        {"baseline": shipment(17)},
        {"threads": 2},
        {"example": (np.zeros((2, 5), np.float32),)},
    ],
)
def test_measure_latency_measures_again_when_anything_else_differs(changes, counted, tmp_path):
    cache = LatencyCache(tmp_path / "latency.jsonl")
    given = {"candidate": shipment(), "baseline": shipment(16), "example": EXAMPLE, "cache": cache}
    measure_latency(**given)
    assert measure_latency(**{**given, **changes}).median_ms == 2.0


def _with_intervals(monkeypatch, *widths: float) -> list[float]:
    """Measurements whose intervals are so wide, one after the other; how many were taken."""
    taken = []

    def measure(*_):
        width = widths[len(taken)]
        taken.append(width)
        return _latency(median_ms=width, ratio_high=width)

    monkeypatch.setattr(latency_module, "time_files", measure)
    return taken


@pytest.mark.parametrize(
    ("widths", "n_taken", "kept"),
    [
        ((1.05,), 1, 1.05),
        ((1.6, 1.1), 2, 1.1),  # a neighbour was busy for a while
        ((1.6, 1.4, 1.9), 3, 1.4),  # it stayed so: the least disturbed
    ],
)
def test_a_disturbed_measurement_is_taken_again_before_it_is_kept_for_good(
    monkeypatch, tmp_path, widths, n_taken, kept
):
    taken = _with_intervals(monkeypatch, *widths)
    cache = LatencyCache(tmp_path / "latency.jsonl")
    for _ in range(2):
        assert measure_latency(shipment(), shipment(16), EXAMPLE, cache=cache).ratio_high == kept
    assert len(taken) == n_taken


def test_measure_latency_passes_the_cache_by_when_fresh(counted, tmp_path):
    cache = LatencyCache(tmp_path / "latency.jsonl")
    measure_latency(shipment(), shipment(16), EXAMPLE, cache=cache)
    assert (
        measure_latency(shipment(), shipment(16), EXAMPLE, cache=cache, fresh=True).median_ms == 2.0
    )
    assert measure_latency(shipment(), shipment(16), EXAMPLE, cache=cache).median_ms == 1.0


def test_measure_latency_writes_no_file_without_a_cache(counted, tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOCOMPRESS_CACHE", str(tmp_path))
    measure_latency(shipment(), shipment(16), EXAMPLE)
    assert list(tmp_path.iterdir()) == []


def test_measure_latency_raises_when_the_runtime_refuses_a_shipment():
    broken = shipment()
    broken.graph.model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(TrialError, match="refuses the graph"):
        measure_latency(broken, shipment(), EXAMPLE)
