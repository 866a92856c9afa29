"""Bundles: the folder of one exported point, with everything in it verified."""

import dataclasses
import hashlib
import json
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autocompress.atomic_file import replace_folder, restore_folder
from autocompress.environment import describe_environment
from autocompress.errors import AutocompressError, InputError, first_line
from autocompress.evaluate.candidate_file import save_candidate
from autocompress.evaluate.evaluator import Evaluator
from autocompress.evaluate.packed_size import file_metadata
from autocompress.export.card import model_card
from autocompress.export.manifest import CARD, FORMAT, MANIFEST, PROMISED, read_manifest
from autocompress.export.runtime_file import arrays_of, scores, ship
from autocompress.packing.packed import write_packed
from autocompress.run_record import RunRecord, TrialRecord
from autocompress.runtime.base import Runtime
from autocompress.runtime.process import RunningModel
from autocompress.runtime.registry import RUNTIMES, find_runtime
from autocompress.study.result_files import refined_weights_path
from autocompress.study.running_trials import trial_seed, weights_path
from autocompress.tasks.prepare import PreparedTask

_PACKED, _ONNX, _PLAN = PROMISED
_WEIGHTS = "model.safetensors"
_ACCURACIES = ("val_accuracy", "test_accuracy", "held_out_accuracy")
_TIMING = (
    *("latency_ms", "latency_spread_ms", "baseline_latency_ms", "speedup"),
    *("speedup_low", "speedup_high", "peak_memory_bytes"),
)
_MUCH = 0.05  # accuracy
_logger = logging.getLogger(__name__)


def export_point(
    run: RunRecord,
    point: TrialRecord,
    prepared: PreparedTask,
    evaluator: Evaluator,
    output: Path,
    runtimes: Sequence[str] = (),
    *,
    has_weights: bool = False,
) -> dict[str, Any]:
    """Write one trial as a bundle; an older bundle in its place is replaced only when all is done.

    Every runnable file is scored in a fresh process on val and, once, on test; the packed file must
    give the same outputs as the ONNX file, bit for bit.

    Args:
        run: The run.
        point: A complete trial of it.
        prepared: The run's task.
        evaluator: Rebuilds the candidate; tunes it again with the same seed if its weights were
            not kept.
        output: Folder of the bundle.
        runtimes: Names of further runtimes to write a file for, beside ONNX Runtime and the one
            whose latency the run measured. One that refuses the model is named in the manifest.
        has_weights: Whether to write the weights by PyTorch's names as well, as floats.

    Returns:
        The manifest.

    Raises:
        InputError: If `output` cannot be written or holds something else.
        AutocompressError: If the exported files do not do what they should.
    """
    try:
        restore_folder(output)
        _check_replaceable(output)
        _warn_of_loss(run, point)
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=output.parent) as scratch:
            bundle = Path(scratch) / "bundle"
            bundle.mkdir()
            manifest = _fill(
                bundle, Path(scratch), run, point, prepared, evaluator, runtimes, has_weights
            )
            _check_replaceable(output)  # a file may have been added meanwhile
            replace_folder(bundle, output)
    except OSError as error:
        raise InputError(f"The bundle {output} cannot be written: {first_line(error)}.") from error
    return manifest


def _check_replaceable(output: Path) -> None:
    """Check that nothing would be lost but what an export has written.

    Raises:
        InputError: If `output` is there and is no bundle, or holds files of somebody else.
    """
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    hint = "Name another folder with `output=FOLDER`."
    try:
        written = {*read_manifest(output)["files"], MANIFEST, CARD}
    except InputError as error:
        raise InputError(
            f"The output folder {output} exists and is not a bundle: {error.message}", hint
        ) from error
    others = sorted(path.name for path in output.iterdir() if path.name not in written)
    if others:
        raise InputError(
            f"The output folder {output} must hold the files of a bundle only, since it would be "
            f"replaced, but holds {', '.join(others[:3])}{', ...' if len(others) > 3 else ''}.",
            f"Move them elsewhere. {hint}",
        )


def _warn_of_loss(run: RunRecord, point: TrialRecord) -> None:
    """Say that a point loses much, while there is time to take another one."""
    base = None if run.baseline is None else run.baseline.measurement
    if base is None or point.measurement is None:
        return
    lost = base.accuracy - point.measurement.accuracy
    if lost > _MUCH:
        _logger.warning(
            "%s loses much: %.2f points of %s on val against the original model.",
            *(point.label, 100.0 * lost, run.info.get("metric", "accuracy")),
        )


def _fill(
    bundle: Path,
    scratch: Path,
    run: RunRecord,
    point: TrialRecord,
    prepared: PreparedTask,
    evaluator: Evaluator,
    runtimes: Sequence[str],
    has_weights: bool,
) -> dict[str, Any]:
    shipment = evaluator.measurer.deploy(candidate_of(run, point, evaluator, scratch))
    graph, baseline = shipment.graph, evaluator.measurer.baseline()
    size = write_packed(bundle / _PACKED, graph.model, graph.quantized, file_metadata(point.plan))
    _write_json(bundle / _PLAN, point.plan.to_json())
    if has_weights:
        save_candidate(bundle / _WEIGHTS, shipment.deployable.model, point.plan)
    base_size = write_packed(
        scratch / "baseline.acz",
        baseline.graph.model,
        baseline.graph.quantized,
        file_metadata(run.trials[0].plan),
    )
    settings = dataclasses.replace(evaluator.settings, input_shapes=None)  # files take the task's
    by_runtime = {}
    for runtime in map(find_runtime, dict.fromkeys(("onnxruntime", settings.runtime, *runtimes))):
        path = bundle / f"{_stem(runtime)}{runtime.suffix}"
        base = scratch / f"baseline-{runtime.name}{runtime.suffix}"
        by_runtime[runtime.name] = ship(shipment, baseline, runtime, path, base, prepared, settings)
    onnx, main = by_runtime["onnxruntime"], by_runtime[settings.runtime]
    for found in (onnx, main):  # the others may fail by themselves
        if "error" in found:
            raise AutocompressError(f"The bundle cannot be made: {found['error']}")
    _check_packed(bundle, prepared)
    base_onnx = find_runtime("onnxruntime"), scratch / "baseline-onnxruntime.onnx"
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
            **{name: onnx[name] for name in _ACCURACIES},
            "search_val_accuracy": point.measurement.accuracy if point.measurement else None,
            "size_bytes": size,
            "search_size_bytes": point.measurement.size_bytes if point.measurement else None,
            "onnx_bytes": onnx["size_bytes"],
            **{name: main[name] for name in _TIMING},
            "macs": point.measurement.macs if point.measurement else None,
            "n_params": point.measurement.n_params if point.measurement else None,
        },
        "timed": {
            "runtime": settings.runtime,
            "threads": settings.runtime_threads,
            "batch": settings.runtime_batch,
        },
        "runtimes": by_runtime,
        "baseline": {**scores(*base_onnx, prepared, settings), "size_bytes": base_size},
        "skipped": list(point.measurement.skipped) if point.measurement else [],
        "files": {path.name: digest_of(path) for path in sorted(bundle.iterdir())},
        "environment": describe_environment(),
    }
    (bundle / CARD).write_text(model_card(manifest, point.plan), encoding="utf-8")
    _write_json(bundle / MANIFEST, manifest)
    return manifest


def _stem(runtime: Runtime) -> str:
    """`model`, and what tells a file from that of another runtime with the same ending."""
    first = next((other.name for other in RUNTIMES if other.suffix == runtime.suffix), None)
    return "model" if first == runtime.name else f"model-{runtime.name}"


def candidate_of(
    run: RunRecord, point: TrialRecord, evaluator: Evaluator, scratch: Path
) -> torch.nn.Module:
    """A point's model with its weights: refined, kept, or tuned again with the same seed.

    Args:
        run: The run.
        point: A complete trial of it, or what it was refined to.
        evaluator: Of the run.
        scratch: Folder for weights that have to be made again.

    Raises:
        InputError: If refined weights are missing or damaged.
        TrialError: If the trial has to be tuned again and fails.
    """
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
    inputs = arrays_of(prepared.val, slice(0, 64))
    runtime = find_runtime("onnxruntime")
    outputs = []
    for name in (_PACKED, _ONNX):
        with RunningModel(runtime, bundle / name, threads=1) as model:
            outputs.append(model.predict(inputs, len(inputs[0])))
    if not np.array_equal(outputs[0], outputs[1]):
        raise AutocompressError("The packed file's outputs differ from the ONNX file's.")


def digest_of(path: Path) -> dict[str, Any]:
    """sha256 in hex of a file, and its bytes."""
    with path.open("rb") as file:  # in chunks: it may be larger than the memory
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"sha256": digest, "size_bytes": file.tell()}


def _write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
