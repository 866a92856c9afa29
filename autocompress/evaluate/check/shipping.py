"""Contracts of the export: the chosen runtime runs the model, and the packed file gives it back."""

from pathlib import Path
from typing import Final

import numpy as np
import torch

from autocompress.errors import InputError, TrialError
from autocompress.evaluate.check.finding import Finding, failed, passed
from autocompress.evaluate.check.subject import Subject
from autocompress.evaluate.packed_size import file_metadata
from autocompress.packing.packed import write_packed
from autocompress.plan import CompressionPlan
from autocompress.runtime.base import Array, Runtime
from autocompress.runtime.process import RunningModel
from autocompress.runtime.table import find_runtime

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
            "Replace what it names by other operations, or choose another --runtime.",
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
