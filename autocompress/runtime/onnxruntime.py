"""ONNX Runtime: sessions with pinned threads, predictions, and what really runs in integers."""

import collections
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from autocompress.errors import TrialError, first_line

_ERRORS_ONLY = 3
_INTEGER_OPS = ("QLinear", "QGemm", "MatMulInteger", "ConvInteger", "DynamicQuantize")

Inputs = tuple[NDArray[np.generic], ...]


def make_session(
    model: onnx.ModelProto | bytes | Path, threads: int, optimized_path: Path | None = None
) -> ort.InferenceSession:
    """Open a session that runs one operator after the other on a fixed number of threads.

    Args:
        model: A graph, its bytes, or a file.
        threads: Threads inside an operator, at least 1.
        optimized_path: Where to write the graph as the runtime will run it; None for nowhere.

    Raises:
        TrialError: With reason `runtime` if the runtime refuses the graph.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _ERRORS_ONLY
    if optimized_path is not None:
        options.optimized_model_filepath = str(optimized_path)
    source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else model
    try:
        return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime raises a dozen classes that share no base
        raise TrialError(
            "runtime", f"ONNX Runtime refuses the graph: {first_line(error)}."
        ) from error


def predict(session: ort.InferenceSession, inputs: Inputs, batch_size: int) -> NDArray[np.generic]:
    """First output for all examples, computed in batches.

    Args:
        session: From `make_session`.
        inputs: One array per input of the graph, examples in dimension 0, at least one.
        batch_size: Examples per call; the last batch may be smaller.

    Returns:
        Shape (N, ...), in the order of the examples.
    """
    names = [value.name for value in session.get_inputs()]
    first = [session.get_outputs()[0].name]
    parts = [
        session.run(first, {n: x[i : i + batch_size] for n, x in zip(names, inputs, strict=True)})[
            0
        ]
        for i in range(0, len(inputs[0]), batch_size)
    ]
    return np.concatenate(parts)


def executed_ops(model: onnx.ModelProto | bytes) -> dict[str, int]:
    """How often each operator occurs in the graph after the runtime's own optimisation."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        make_session(model, threads=1, optimized_path=path)
        nodes = onnx.load(path, load_external_data=False).graph.node
    return dict(sorted(collections.Counter(node.op_type for node in nodes).items()))


def executed_integer_nodes(model: onnx.ModelProto | bytes) -> int:
    """How many operators run in integer arithmetic after the runtime's own optimisation."""
    return sum(n for op, n in executed_ops(model).items() if op.startswith(_INTEGER_OPS))
