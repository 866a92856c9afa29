"""Whether a bundle still is what its manifest promises."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from autocompress.atomic_file import scratch_folder
from autocompress.environment import processor_name
from autocompress.errors import InputError, TrialError
from autocompress.evaluate.deploy import deploy
from autocompress.evaluate.settings import EvaluationSettings
from autocompress.export.bench import size_of
from autocompress.export.bundle import digest_of
from autocompress.export.judgement import error_of, judge_of
from autocompress.export.manifest import CARD, MANIFEST, read_manifest
from autocompress.export.random_inputs import random_inputs
from autocompress.export.runtime_file import arrays_of, scores, timing
from autocompress.runtime.base import Runtime
from autocompress.runtime.emulation import emulator_of
from autocompress.runtime.process import RunningModel
from autocompress.runtime.registry import (
    RUNTIME_REGISTRY,
    find_runtime,
    is_installed,
    known_runtime,
    versions_of,
)
from autocompress.tasks.base import Task
from autocompress.tasks.prepare import PreparedTask, prepare_task

Promise = Literal["files", "sizes", "outputs", "accuracy", "latency"]
Verdict = Literal["kept", "broken", "not checked"]

TOLERANCE: Final = 0.002
"""Share by which an accuracy may differ: other processors round integers' sums differently."""

_SESSION_NOISE: Final = 0.1
"""Share by which ratios of two sessions may differ; 5 % was seen. Intervals are of one session."""

_N_COMPARED: Final = 16  # random inputs, where there is no task
_N_EMULATED: Final = 200
_EMULATED_BATCH: Final = 25


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at.

    Attributes:
        promise: What kind of promise it is.
        what: The file, or the file and the figure.
        verdict: Whether it was kept.
        note: What was promised and found, or why it was not checked.
    """

    promise: Promise
    what: str
    verdict: Verdict
    note: str


def verify_bundle(folder: Path, task: Task | None, cpu: str | None = None) -> Iterator[Check]:
    """Check a bundle against its manifest: hashes, sizes, outputs, accuracy, latency.

    Args:
        folder: What `export` wrote.
        task: What the model was made for; without it accuracy and latency are not checked.
        cpu: A key of `emulation.CPUS`: the ONNX file must answer there as it does here.

    Yields:
        Checks, as they are made.

    Raises:
        InputError: If there is no manifest, or it makes no sense, or there is no such processor.
    """
    manifest = read_manifest(folder)
    launcher = None if cpu is None else emulator_of(cpu)
    files = list(_check_files(folder, manifest))
    yield from files
    broken = {check.what for check in files if check.verdict == "broken"}
    yield from _check_sizes(folder, manifest, broken)
    if not broken & {"model.acz", "model.onnx"}:
        yield from _check_outputs(folder)
    prepared = None if task is None else prepare_task(task)
    if launcher is not None and "model.onnx" not in broken:
        yield _check_elsewhere(folder, launcher, str(cpu), prepared)
    for name, promised in manifest["runtimes"].items():
        weights = str(Path(promised["file"]).with_suffix(".bin"))  # OpenVINO's lie beside
        if "error" in promised or broken & {promised["file"], weights}:
            continue
        yield from _check_runtime(folder, manifest, name, promised, prepared)


def _check_files(folder: Path, manifest: Mapping[str, Any]) -> Iterator[Check]:
    for name, promised in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            yield Check(promise="files", what=name, verdict="broken", note="it is missing")
            continue
        found = digest_of(path)["sha256"]
        is_kept = found == promised["sha256"]
        note = f"sha256 {found[:12]}"
        if not is_kept:
            note = f"sha256 {promised['sha256'][:12]} promised, {found[:12]} found"
        yield _check("files", name, is_kept, note)
    for path in sorted(folder.iterdir()):
        if path.name not in manifest["files"] and path.name not in (MANIFEST, CARD):
            note = "the manifest does not name it: whatever it is, it is not part of the bundle"
            yield Check(promise="files", what=path.name, verdict="not checked", note=note)


def _check_sizes(folder: Path, manifest: Mapping[str, Any], broken: set[str]) -> Iterator[Check]:
    promised = {"model.acz": manifest["measurements"]["size_bytes"]} | {
        facts["file"]: facts["size_bytes"]
        for facts in manifest["runtimes"].values()
        if "error" not in facts
    }
    for name, size in promised.items():
        if not (folder / name).is_file():
            continue  # said already
        found = size_of(folder / name)
        yield _check("sizes", name, found == size, f"{size:,} bytes promised, {found:,} found")


def _check_outputs(folder: Path) -> Iterator[Check]:
    """The packed file must compute what the ONNX file does, bit for bit."""
    runtime = find_runtime("onnxruntime")
    outputs = []
    for name in ("model.acz", "model.onnx"):
        try:
            with RunningModel(runtime, folder / name, threads=1) as model:
                inputs = random_inputs(model.inputs, _N_COMPARED, {}, seed=0)
                outputs.append(model.predict(inputs, _N_COMPARED))
        except (TrialError, InputError) as error:
            yield Check(promise="outputs", what=name, verdict="broken", note=error.message)
            return
    is_kept = bool(np.array_equal(outputs[0], outputs[1], equal_nan=True))
    note = f"{_N_COMPARED} random inputs give {'equal' if is_kept else 'other'} outputs"
    yield _check("outputs", "model.acz and model.onnx", is_kept, note)


def _check_elsewhere(
    folder: Path, launcher: tuple[str, ...], cpu: str, prepared: PreparedTask | None
) -> Check:
    """The ONNX file must answer on another processor as it does on this one."""
    runtime, path, what = find_runtime("onnxruntime"), folder / "model.onnx", f"model.onnx on {cpu}"
    outputs = []
    try:
        for launched in ((), launcher):
            with RunningModel(runtime, path, 1, launched) as model:
                if prepared is None:
                    inputs = random_inputs(model.inputs, _N_COMPARED, {}, seed=0)
                else:
                    inputs = arrays_of(prepared.val, slice(0, _N_EMULATED))
                outputs.append(model.predict(inputs, _EMULATED_BATCH))
    except (TrialError, InputError) as error:
        return Check(promise="outputs", what=what, verdict="broken", note=error.message)
    here, there = outputs
    examples = f"{len(here)} {'random inputs' if prepared is None else 'examples of val'}"
    if np.array_equal(here, there, equal_nan=True):
        return _check("outputs", what, True, f"{examples} give equal outputs, bit for bit")
    judge = judge_of("output", here)
    share, apart = judge.agreement(here, there), error_of(here, there)
    note = (
        f"{examples}: {share:.2%} answered as here, outputs up to {apart:.2%} of the largest apart"
    )
    return _check("outputs", what, share == 1.0, note)


def _check_runtime(
    folder: Path,
    manifest: Mapping[str, Any],
    name: str,
    promised: Mapping[str, Any],
    prepared: PreparedTask | None,
) -> Iterator[Check]:
    runtime, why = _known(name)
    if runtime is None:
        pass
    elif not runtime.is_safe_to_open:
        why = "such a file can run any code, so it is not opened"
    elif not is_installed(runtime):
        why = f"{RUNTIME_REGISTRY.install_command(name, runtime.extra)} brings its runtime"
    elif prepared is None:
        why = "the task is not known: give it with --task"
    if why or runtime is None or prepared is None:
        for promise in ("accuracy", "latency"):
            yield Check(promise=promise, what=promised["file"], verdict="not checked", note=why)
        return
    timed = manifest["timed"]
    settings = EvaluationSettings(
        threads=1, runtime=name, runtime_threads=timed["threads"], runtime_batch=timed["batch"]
    )
    path = folder / promised["file"]
    checks: tuple[tuple[Promise, Callable[[], Iterator[Check]]], ...] = (
        ("accuracy", lambda: _check_scores(runtime, path, promised, prepared, settings)),
        ("latency", lambda: _check_timing(runtime, path, manifest, promised, prepared, settings)),
    )
    for promise, look in checks:
        try:
            yield from look()
        except TrialError as error:
            yield Check(promise=promise, what=path.name, verdict="broken", note=error.message)


def _known(name: str) -> tuple[Runtime | None, str]:
    """A runtime that a manifest names, or why there is none."""
    if name not in RUNTIME_REGISTRY.names:
        return None, "this version of autocompress does not know the runtime"
    try:
        return known_runtime(name), ""
    except InputError as error:
        return None, error.message


def _check_scores(
    runtime: Runtime,
    path: Path,
    promised: Mapping[str, Any],
    prepared: PreparedTask,
    settings: EvaluationSettings,
) -> Iterator[Check]:
    splits = (prepared.val, prepared.test)
    fewest = min(len(split) for split in splits if split is not None)
    tolerance = max(TOLERANCE, 1.0 / fewest)  # one example may be decided otherwise
    for name, found in scores(runtime, path, prepared, settings).items():
        told = promised[name]
        if told is None or found is None:
            continue
        note = f"{told:.2%} promised, {found:.2%} found"
        what = f"{path.name}, {name.removesuffix('_accuracy').replace('_', ' ')}"
        yield _check("accuracy", what, abs(found - told) <= tolerance + 1e-9, note)


def _check_timing(
    runtime: Runtime,
    path: Path,
    manifest: Mapping[str, Any],
    promised: Mapping[str, Any],
    prepared: PreparedTask,
    settings: EvaluationSettings,
) -> Iterator[Check]:
    """A speedup must be as large as promised, as far as both intervals and sessions can tell."""
    there = manifest["environment"]["hardware"]["processor"]
    differs = [f"it was timed on {there}"] if there != processor_name() else []
    differs += [
        f"it was timed with {package} {version}"
        for package, version in promised["versions"].items()
        if versions_of(runtime).get(package) != version
    ]
    if differs:
        note = differs[0]
        yield Check(promise="latency", what=path.name, verdict="not checked", note=note)
        return
    with scratch_folder() as scratch:
        baseline = Path(scratch) / f"baseline{runtime.suffix}"
        runtime.write(deploy(prepared.task.model, prepared), baseline, settings.runtime_batch)
        found = timing(runtime, path, baseline, prepared, settings)
    is_kept = found["speedup_high"] * (1.0 + _SESSION_NOISE) >= promised["speedup_low"]
    told, now = (
        f"{x['speedup']:.2f}x ({x['speedup_low']:.2f}-{x['speedup_high']:.2f})"
        for x in (promised, found)
    )
    yield _check("latency", path.name, is_kept, f"{told} promised, {now} found")


def _check(promise: Promise, what: str, is_kept: bool, note: str) -> Check:
    return Check(promise=promise, what=what, verdict="kept" if is_kept else "broken", note=note)
