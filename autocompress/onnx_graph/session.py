"""A session of ONNX Runtime for a graph."""

from pathlib import Path
from typing import TYPE_CHECKING

import onnxruntime as ort

from autocompress.errors import TrialError, first_line

if TYPE_CHECKING:  # a process that only runs a file must not wait for onnx
    import onnx

_FATAL_ONLY = 4  # errors are raised, and the caller says them once


def make_session(
    model: "onnx.ModelProto | bytes | Path", threads: int, optimized_path: Path | None = None
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
    options.log_severity_level = _FATAL_ONLY
    # Idle threads that go on waiting at full speed would slow whoever runs next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if optimized_path is not None:
        options.optimized_model_filepath = str(optimized_path)
    source = model if isinstance(model, bytes | Path) else model.SerializeToString()
    try:
        return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime raises a dozen classes that share no base
        raise TrialError(
            "runtime", f"ONNX Runtime refuses the graph: {first_line(error)}."
        ) from error
