"""Contracts of the export: the chosen runtime runs the model, and the packed file gives it back."""

import copy
import dataclasses
import itertools
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import torch

from autocompress.errors import InputError, TrialError
from autocompress.evaluate.check.subject import Finding, Subject, failed, passed, warned
from autocompress.evaluate.packed_size import file_metadata
from autocompress.packing.packed import write_packed
from autocompress.plan import CompressionPlan
from autocompress.runtime.base import Array, Runtime
from autocompress.runtime.process import RunningModel
from autocompress.runtime.registry import find_runtime
from autocompress.space.build import BuiltSpace, build_space
from autocompress.technique import TECHNIQUES
from autocompress.train.loop import finetune_, steps_of
from autocompress.train.precision import to_fast_layout_
from autocompress.train.teachers import make_teacher

# Kind of knob -> what is done to its targets; those that a user asks for first.
_VERBS: Final = {kind: row.verb for kind, row in TECHNIQUES.items() if row.verb}
_SHOWN: Final = 3


def has_knobs(subject: Subject) -> Finding:
    """There is something to search; names what takes no technique, and why."""
    profile = subject.evaluator.profile
    try:
        built = build_space(profile, subject.rules)
    except InputError as error:
        return failed(error.message, error.hint, subject.place("model"))
    counts = {verb: _targets(built, kind) for kind, verb in _VERBS.items()}
    refused = {verb: _refusals(built, kind) for kind, verb in _VERBS.items()}
    for name, reason in profile.refused_groups.items():
        names = refused["pruned"].setdefault(reason, [])
        if name not in names:
            names.append(name)
    said = "; ".join(
        f"{n} {'groups' if v == 'pruned' else 'layers'} can be {v}" for v, n in counts.items()
    )
    message = f"{len(built.space.knobs)} knobs: {said}"
    facts = {"knobs": len(built.space.knobs), "refused": refused}
    nothing = [verb for verb, n in counts.items() if n == 0 and refused[verb]]
    if nothing:
        why = "; ".join(f"nothing can be {verb}: {_reasons(refused[verb])}" for verb in nothing)
        return warned(
            f"{message}; {why}.",
            "`autocompress analyze` says it layer by layer.",
            subject.place("model"),
            **facts,
        )
    unasked = [verb for verb, n in counts.items() if n == 0]
    if unasked:
        message += f" (no rule of the search space asks for {' or '.join(unasked)} layers here)"
    kept = "; ".join(f"not {verb}: {_reasons(r)}" for verb, r in refused.items() if r)
    return passed(f"{message}. {kept}" if kept else message, **facts)


def _targets(built: BuiltSpace, kind: str) -> int:
    return len({target for k in built.space.knobs if k.kind == kind for target in k.targets})


def _refusals(built: BuiltSpace, kind: str) -> dict[str, list[str]]:
    """Reason -> the layers or groups it is given for."""
    found: dict[str, list[str]] = {}
    for (technique, target), reason in built.refused.items():
        if technique == kind:
            found.setdefault(reason, []).append(target)
    return found


def _reasons(refused: Mapping[str, list[str]]) -> str:
    parts = []
    for reason, targets in refused.items():
        more = f" and {len(targets) - _SHOWN} more" if len(targets) > _SHOWN else ""
        parts.append(f"{', '.join(targets[:_SHOWN])}{more} ({reason})")
    return ", ".join(parts)


_BATCHES: Final = 4
_LONG_S: Final = 8 * 3600.0


def takes(subject: Subject) -> Finding:
    """How long a trial and the whole search will take, from a few measured steps."""
    subject.needs("loss", "val")
    outputs, shipment = subject.val_outputs, subject.shipment
    assert len(outputs)
    measurer, has_latency = subject.evaluator.measurer, subject.settings.has_latency
    if has_latency:  # anew: a search times every new structure
        subject.timed("latency", lambda: measurer.latency(shipment, fresh=True))
    n_steps = steps_of(subject.evaluator.recipe, subject.prepared)
    step_s = _step_seconds(subject)
    others_s = sum(subject.seconds.get(name, 0.0) for name in ("val", "export", "pack", "latency"))
    trial_s = n_steps * step_s + others_s
    search_s = trial_s * subject.n_trials
    facts = {"est_trial_s": trial_s, "est_search_s": search_s, "n_steps": n_steps, "step_s": step_s}
    steps = "1 step" if n_steps == 1 else f"{n_steps:,} steps"
    said = (
        f"about {_words(trial_s)} a trial ({steps} of {1000 * step_s:.1f} ms, and "
        f"{others_s:.1f} s to score, export and time); about {_words(search_s)} for "
        f"{subject.n_trials} trials, the sensitivity table not counted"
    )
    if search_s > _LONG_S:
        return warned(
            f"{said}.",
            "`proxy=quick`, fewer Task.proxy_epochs, a smaller `budget` or more `jobs` shorten it.",
            subject.place("proxy_epochs"),
            **facts,
        )
    return passed(said, **facts)


def _step_seconds(subject: Subject) -> float:
    """Seconds of one training step: the median of a few, the first left out."""
    evaluator, prepared = subject.evaluator, subject.prepared
    recipe = dataclasses.replace(evaluator.recipe, epochs=1.0)
    few = slice(0, _BATCHES * recipe.batch_size)
    prepared = dataclasses.replace(prepared, train=prepared.train.subset(few), unlabelled=None)
    device, precision = evaluator.device, evaluator.precision
    teacher = make_teacher(prepared, evaluator.model, recipe, device=device, precision=precision)
    model = to_fast_layout_(copy.deepcopy(evaluator.model), device)
    ends = [time.perf_counter()]
    finetune_(
        model,
        prepared,
        teacher,
        recipe,
        seed=0,
        device=device,
        precision=precision,
        on_step=lambda step, n_steps: ends.append(time.perf_counter()),
    )
    steps = [end - start for start, end in itertools.pairwise(ends)]
    return statistics.median(steps[1:] or steps)


def _words(seconds: float) -> str:
    if seconds >= 5400.0:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 90.0 else f"{seconds:.1f} s"


_N_EXAMPLES: Final = 8
# Of the largest output. Float kernels round differently; bfloat16 keeps 8 bits of a number.
_TOLERANCE: Final = 1e-3
_HALF_TOLERANCE: Final = 0.1
_PRECISE: Final = "onnxruntime"


def exports(subject: Subject) -> Finding:
    """The runtime takes the model, and its outputs equal PyTorch's."""
    try:
        runtime = find_runtime(subject.settings.runtime)
    except InputError as error:
        return failed(error.message, error.hint)
    path = subject.scratch / f"checked{runtime.suffix}"
    inputs = _arrays(subject)
    batch = len(inputs[0])
    try:
        runtime.write(subject.shipment, path, batch)
        found = _outputs(runtime, path, inputs)
    except TrialError as error:
        return failed(
            f"{runtime.title} does not take the model: {error.message}",
            "Replace what it names by other operations, or choose another `runtime`.",
            subject.place("model"),
        )
    with torch.no_grad():
        wanted = subject.model(*map(torch.from_numpy, inputs)).numpy()
    if found.shape != wanted.shape:
        return failed(
            f"The exported model returns shape {found.shape}, PyTorch {wanted.shape}.",
            "Let `forward` compute shapes from its inputs, not from constants.",
            subject.place("model"),
        )
    apart = float(np.abs(found - wanted).max()) / (float(np.abs(wanted).max()) or 1.0)
    limit = _HALF_TOLERANCE if "bf16" in runtime.name else _TOLERANCE
    facts = {"runtime": runtime.name, "difference": apart, "bytes": path.stat().st_size}
    if not apart <= limit:
        return failed(
            f"Outputs in {runtime.title} differ from PyTorch's by {apart:.1%} of the largest.",
            "Look for what an export fixes: `if` on values, Python numbers taken from tensors, "
            "random numbers, loops of a length that depends on the input.",
            subject.place("model"),
            **facts,
        )
    return passed(
        f"{runtime.title} gives PyTorch's outputs (to {apart:.1g} of the largest)", **facts
    )


def packs(subject: Subject) -> Finding:
    """The packed file decodes to a graph with the same outputs, bit for bit."""
    graph, runtime = subject.shipment.graph, find_runtime(_PRECISE)
    packed, plain = subject.scratch / "checked.acz", subject.scratch / "checked-plain.onnx"
    metadata = file_metadata(CompressionPlan())
    size = subject.timed("pack", write_packed, packed, graph.model, graph.quantized, metadata)
    runtime.write(subject.shipment, plain, len(_arrays(subject)[0]))
    first, second = (_outputs(runtime, path, _arrays(subject)) for path in (packed, plain))
    if not np.array_equal(first, second, equal_nan=True):
        return failed("The packed file's outputs differ from those of the model it holds.", "")
    return passed(f"{size:,} bytes, and gives the same outputs to the bit", size_bytes=size)


def _arrays(subject: Subject) -> tuple[Array, ...]:
    inputs = subject.example[0]
    return tuple(np.ascontiguousarray(t[:_N_EXAMPLES].numpy()) for t in inputs)


def _outputs(runtime: Runtime, path: Path, inputs: tuple[Array, ...]) -> Array:
    with RunningModel(runtime, path, threads=1) as model:
        return model.predict(inputs, len(inputs[0]))
