"""One file of a bundle: written for a runtime, re-loaded in a fresh process, scored and timed."""

from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from autocompress.errors import TrialError
from autocompress.evaluate.deploy import timed_inputs
from autocompress.evaluate.scoring import score
from autocompress.evaluate.settings import EvaluationSettings
from autocompress.export.bench import size_of
from autocompress.runtime.base import Array, Arrays, Runtime, Shipment
from autocompress.runtime.integer_codes import to_integer_codes
from autocompress.runtime.latency import time_files
from autocompress.runtime.onnxruntime import executed_integer_nodes
from autocompress.runtime.process import RunningModel
from autocompress.runtime.registry import versions_of
from autocompress.tasks.base import Examples
from autocompress.tasks.prepare import PreparedTask

_CHUNK = 4096  # examples handed to a fresh process at a time
_BATCH_SIZE = 64
_INT8_BITS: Final = 8
_WIDEST_CODE: Final = 64


def ship(
    shipment: Shipment,
    baseline: Shipment,
    runtime: Runtime,
    path: Path,
    baseline_path: Path,
    prepared: PreparedTask,
    settings: EvaluationSettings,
) -> dict[str, Any]:
    """Write a candidate for a runtime, score the file in a fresh process, and time it.

    Args:
        shipment: The candidate.
        baseline: The original model, which is written as well and timed in between.
        runtime: Who runs it.
        path: Where to write the candidate.
        baseline_path: Where to write the original model; a file that is there is taken.
        prepared: Examples to score with.
        settings: Threads, batch and shape of an inference that is timed.

    Returns:
        What a manifest says about the file, or `error`, why there is none.
    """
    facts: dict[str, Any] = {"file": path.name, "versions": versions_of(runtime)}
    try:
        runtime.write(shipment, path, settings.runtime_batch)
        if not baseline_path.is_file():
            runtime.write(baseline, baseline_path, settings.runtime_batch)
        facts |= {
            "size_bytes": size_of(path),
            "baseline_size_bytes": size_of(baseline_path),
            **scores(runtime, path, prepared, settings),
            **timing(runtime, path, baseline_path, prepared, settings),
        }
    except TrialError as error:
        for left in _written(path):
            left.unlink(missing_ok=True)
        return {**facts, "error": error.message}
    if runtime.suffix == ".onnx":
        facts["integer_nodes"] = executed_integer_nodes(path)
    if runtime.integer_weight_bits < _INT8_BITS:
        facts["needs_vnni"] = wide_integer_layers(shipment)
    return facts


def wide_integer_layers(shipment: Shipment) -> list[str]:
    """Integer layers whose results depend on the processor: sums of their products may saturate.

    On x86 without VNNI two products of unsigned 8-bit inputs and weights are added in signed 16
    bits, in which codes up to 64 have room: 2 x 255 x 64 = 32,640.
    """
    found = []
    for layer in shipment.deployable.activations.keys() - set(shipment.graph.not_integer):
        codes = [
            to_integer_codes(stored)
            for name, stored in shipment.deployable.weights.items()
            if name == layer or name.startswith(f"{layer}.")  # a recurrent layer has several
        ]
        widest = [np.abs(c.codes.astype(np.int16)).max(initial=0) for c in codes if c is not None]
        if max(widest, default=0) > _WIDEST_CODE:
            found.append(layer)
    return sorted(found)


def _written(path: Path) -> tuple[Path, ...]:
    """A runtime's file and what it keeps beside it; others of the same stem are other runtimes'."""
    return (path, path.with_suffix(".bin")) if path.suffix == ".xml" else (path,)


def timing(
    runtime: Runtime,
    path: Path,
    baseline: Path,
    prepared: PreparedTask,
    settings: EvaluationSettings,
) -> dict[str, Any]:
    """Latency of a file against the original model's, with its interval, and memory."""
    example = timed_inputs(prepared.example_inputs, settings.runtime_batch, settings.input_shapes)
    latency = time_files(path, baseline, example, runtime, settings.runtime_threads)
    return {
        "latency_ms": latency.median_ms,
        "latency_spread_ms": latency.spread_ms,
        "baseline_latency_ms": latency.baseline_median_ms,
        "speedup": 1.0 / latency.ratio,
        "speedup_low": 1.0 / latency.ratio_high,
        "speedup_high": 1.0 / latency.ratio_low,
        "peak_memory_bytes": latency.peak_memory_bytes,
    }


def scores(
    runtime: Runtime, path: Path, prepared: PreparedTask, settings: EvaluationSettings
) -> dict[str, float | None]:
    """Accuracy of a file on val, on test, and on both together (`held_out`)."""
    outputs = {
        split: outputs_of(runtime, path, data, settings)
        for split, data in (("val", prepared.val), ("test", prepared.test))
        if data is not None
    }
    found: dict[str, float | None] = {"test_accuracy": None, "held_out_accuracy": None}
    for split, output in outputs.items():
        targets = getattr(prepared, split).targets
        found[f"{split}_accuracy"] = score(prepared.task, output, targets)[0]
    if prepared.test is not None:
        both = torch.cat([prepared.val.targets, prepared.test.targets])
        joined = torch.cat([outputs["val"], outputs["test"]])
        found["held_out_accuracy"] = score(prepared.task, joined, both)[0]
    return found


def outputs_of(
    runtime: Runtime, path: Path, data: Examples, settings: EvaluationSettings
) -> torch.Tensor:
    """First output of a file for all examples, computed in a fresh process."""
    chunks: list[Array] = []
    batch_size = settings.runtime_batch if runtime.has_own_batch else _BATCH_SIZE
    with RunningModel(runtime, path, threads=1) as model:
        for start in range(0, len(data), _CHUNK):
            arrays = arrays_of(data, slice(start, start + _CHUNK))
            n_examples = len(arrays[0])
            if runtime.has_own_batch:
                arrays = tuple(_filled(array, batch_size) for array in arrays)
            chunks.append(model.predict(arrays, batch_size)[:n_examples])
    return torch.from_numpy(np.concatenate(chunks))


def arrays_of(data: Examples, indices: slice) -> Arrays:
    """Inputs of some examples."""
    return tuple(np.ascontiguousarray(tensor.numpy()) for tensor in data.batch(indices)[0])


def _filled(array: Array, batch_size: int) -> Array:
    """Examples, the last repeated until all batches are whole."""
    n_missing = -len(array) % batch_size
    return np.concatenate([array, np.repeat(array[-1:], n_missing, axis=0)])
