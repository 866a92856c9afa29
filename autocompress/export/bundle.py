"""Bundles: the folder of one exported point, with everything in it verified."""

import hashlib
import json
import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autocompress.atomic_file import flush_folder
from autocompress.errors import AutocompressError, InputError, first_line
from autocompress.evaluate.deploy import deploy
from autocompress.evaluate.evaluator import Evaluator
from autocompress.evaluate.packed_size import file_metadata
from autocompress.evaluate.scoring import score
from autocompress.export.card import model_card
from autocompress.export.fresh_process import run_fresh
from autocompress.packing.packed import write_packed
from autocompress.run_record import RunRecord, TrialRecord
from autocompress.search.environment import describe_environment
from autocompress.search.refined import refined_weights_path
from autocompress.search.under_way import trial_seed, weights_path
from autocompress.tasks.base import TensorData
from autocompress.tasks.prepare import PreparedTask

FORMAT = 1
_PACKED, _ONNX, _PLAN, _MANIFEST, _CARD = (
    "model.acz",
    "model.onnx",
    "plan.json",
    "manifest.json",
    "README.md",
)
_logger = logging.getLogger(__name__)
_CHUNK = 4096  # examples handed to a fresh process at a time


def export_point(
    run: RunRecord,
    point: TrialRecord,
    prepared: PreparedTask,
    evaluator: Evaluator,
    output: Path,
) -> dict[str, Any]:
    """Write one trial as a bundle; an older bundle in its place is replaced only when all is done.

    The ONNX file is scored in a fresh process on val and, once, on test; the packed file must give
    the same outputs bit for bit.

    Args:
        run: The run.
        point: A complete trial of it.
        prepared: The run's task.
        evaluator: Rebuilds the candidate; tunes it again with the same seed if its weights were
            not kept.
        output: Folder of the bundle.

    Returns:
        The manifest.

    Raises:
        InputError: If `output` cannot be written or holds something else.
        AutocompressError: If the exported files do not do what they should.
    """
    if output.exists() and not (output / _MANIFEST).is_file():
        raise InputError(
            f"The output folder {output} exists and is not a bundle.", "Name another with -o."
        )
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=output.parent) as scratch:
            bundle = Path(scratch) / "bundle"
            bundle.mkdir()
            manifest = _fill(bundle, Path(scratch), run, point, prepared, evaluator)
            flush_folder(bundle)
            if output.exists():
                output.rename(Path(scratch) / "old")
            bundle.rename(output)
    except OSError as error:
        raise InputError(f"The bundle {output} cannot be written: {first_line(error)}.") from error
    return manifest


def _fill(
    bundle: Path,
    scratch: Path,
    run: RunRecord,
    point: TrialRecord,
    prepared: PreparedTask,
    evaluator: Evaluator,
) -> dict[str, Any]:
    graph = deploy(_candidate(run, point, evaluator, scratch), prepared)
    baseline = evaluator.meter.baseline_graph()
    size = write_packed(bundle / _PACKED, graph.model, graph.quantized, file_metadata(point.plan))
    (bundle / _ONNX).write_bytes(graph.model.SerializeToString())
    _write_json(bundle / _PLAN, point.plan.to_json())
    base_onnx = scratch / "baseline.onnx"
    base_onnx.write_bytes(baseline.model.SerializeToString())
    base_size = write_packed(
        scratch / "baseline.acz",
        baseline.model,
        baseline.quantized,
        file_metadata(run.trials[0].plan),
    )
    _check_packed(bundle, prepared)
    latency = evaluator.meter.latency(graph, fresh=True)
    if point.measurement is not None and size != point.measurement.size_bytes:
        _logger.warning(
            "The packed file of %s has %d bytes, the search measured %d.",
            *(point.label, size, point.measurement.size_bytes),
        )
    manifest = {
        "format": FORMAT,
        "run": run.name,
        "trial": point.number,
        "label": point.label,
        "plan_digest": point.plan.digest,
        "fidelity": point.measurement.fidelity if point.measurement else None,
        "task": run.info["task_name"],
        "metric": run.info["metric"],
        "measurements": {
            **_scores(bundle / _ONNX, prepared),
            "search_val_accuracy": point.measurement.accuracy if point.measurement else None,
            "size_bytes": size,
            "search_size_bytes": point.measurement.size_bytes if point.measurement else None,
            "onnx_bytes": (bundle / _ONNX).stat().st_size,
            "latency_ms": latency.median_ms,
            "latency_spread_ms": latency.spread_ms,
            "baseline_latency_ms": latency.baseline_median_ms,
            "macs": point.measurement.macs if point.measurement else None,
            "n_params": point.measurement.n_params if point.measurement else None,
        },
        "baseline": {**_scores(base_onnx, prepared), "size_bytes": base_size},
        "skipped": list(point.measurement.skipped) if point.measurement else [],
        "files": {name: _digest(bundle / name) for name in (_PACKED, _ONNX, _PLAN)},
        "environment": describe_environment(),
    }
    (bundle / _CARD).write_text(model_card(manifest, point.plan), encoding="utf-8")
    _write_json(bundle / _MANIFEST, manifest)
    return manifest


def _candidate(
    run: RunRecord, point: TrialRecord, evaluator: Evaluator, scratch: Path
) -> torch.nn.Module:
    if point.measurement is not None and point.measurement.fidelity == 2:
        return _refined(run, point, evaluator)
    kept = weights_path(run.folder, point.number)
    if kept.is_file():
        try:
            return evaluator.rebuild(point.plan, kept)
        except InputError as error:  # tuning gives the same weights again
            _logger.warning("Tuning %s anew. %s", point.label, error.message)
    weights = scratch / "weights.safetensors"
    assert point.measurement is not None
    evaluator.evaluate(
        point.plan,
        seed=trial_seed(run.info["seed"], point.number),
        fidelity=point.measurement.fidelity,
        has_half_batch=point.measurement.has_half_batch,
        keep=weights,
    )
    return evaluator.rebuild(point.plan, weights)


def _refined(run: RunRecord, point: TrialRecord, evaluator: Evaluator) -> torch.nn.Module:
    weights = refined_weights_path(run.folder, point.number)
    try:
        if weights is None or not weights.is_file():
            raise InputError(
                f"The refined weights of trial {point.number} must lie in "
                f"{weights or run.folder / 'refined'}, but do not."
            )
        return evaluator.rebuild(point.plan, weights)
    except InputError as error:
        raise InputError(
            error.message,
            "Refine the trial again: delete its entry in refinements.json first.",
        ) from error


def _check_packed(bundle: Path, prepared: PreparedTask) -> None:
    inputs = _arrays(prepared.val, slice(0, 64))
    packed, onnx = (run_fresh(bundle / name, inputs) for name in (_PACKED, _ONNX))
    if not np.array_equal(packed, onnx):
        raise AutocompressError("The packed file's outputs differ from the ONNX file's.")


def _scores(model: Path, prepared: PreparedTask) -> dict[str, float | None]:
    """Accuracy of a file on val, on test, and on both together (`held_out`)."""
    outputs = {
        split: _outputs(model, data)
        for split, data in (("val", prepared.val), ("test", prepared.test))
        if data is not None
    }
    scores: dict[str, float | None] = {"test_accuracy": None, "held_out_accuracy": None}
    for split, output in outputs.items():
        targets = getattr(prepared, split).targets
        scores[f"{split}_accuracy"] = score(prepared.task, output, targets)[0]
    if prepared.test is not None:
        both = torch.cat([prepared.val.targets, prepared.test.targets])
        scores["held_out_accuracy"] = score(
            prepared.task, torch.cat([outputs["val"], outputs["test"]]), both
        )[0]
    return scores


def _outputs(model: Path, data: TensorData) -> torch.Tensor:
    chunks = [
        run_fresh(model, _arrays(data, slice(start, start + _CHUNK)))
        for start in range(0, len(data), _CHUNK)
    ]
    return torch.from_numpy(np.concatenate(chunks))


def _arrays(data: TensorData, indices: slice) -> tuple[NDArray[np.generic], ...]:
    return tuple(np.ascontiguousarray(tensor.numpy()) for tensor in data.batch(indices)[0])


def _digest(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}


def _write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
