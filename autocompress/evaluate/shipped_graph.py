"""Does a candidate's file compute what the candidate does? Asked before its figures count."""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autocompress.errors import TrialError, first_line
from autocompress.onnx_graph.session import make_session
from autocompress.runtime.base import Shipment
from autocompress.tasks.base import Inputs

_ROUNDING: Final = ("QuantizeLinear", "DynamicQuantizeLinear")
TOLERANCE: Final = 0.02
"""Of the largest output, for graphs that compute in floats: other orders of sums differ by less."""

INTEGER_TOLERANCE: Final = 0.3
"""Of the outputs' spread, for the root mean square error of graphs with 8-bit values: they round
between layers too, and differ by 0.01 to 0.05 on digits and a ResNet-20."""


def check_shipped(shipment: Shipment, model: nn.Module, inputs: Inputs) -> None:
    """Run a candidate's graph in ONNX Runtime, and hold it against the candidate.

    What a search scores is a PyTorch model, and what ships is a graph: they part where weights are
    read outside of the layer that is rounded, where an export fixes what depends on the input, and
    where the scales of integer operators cannot be represented.

    Args:
        shipment: What ships.
        model: The candidate, in eval mode, on the CPU.
        inputs: Examples, each of shape (N, ...).

    Raises:
        TrialError: With reason `shipped_graph` if the graph does not run or computes something
            else.
    """
    graph = shipment.graph.model
    with torch.no_grad():
        outputs = model(*inputs)
    if not isinstance(outputs, Tensor):
        return
    session = make_session(graph, threads=torch.get_num_threads())
    names = [value.name for value in session.get_inputs()]
    arrays = [np.ascontiguousarray(tensor.numpy()) for tensor in inputs]
    try:
        found = session.run(None, dict(zip(names, arrays, strict=True)))[0]
    except Exception as error:  # the runtime raises a dozen classes that share no base
        raise TrialError(
            "shipped_graph", f"The exported graph does not run: {first_line(error)}."
        ) from error
    wanted = outputs.numpy().astype(np.float64)
    if found.shape != wanted.shape:
        raise TrialError(
            "shipped_graph",
            f"The exported graph returns shape {found.shape}, the candidate {wanted.shape}.",
        )
    is_integer = any(node.op_type in _ROUNDING for node in graph.graph.node)
    with np.errstate(invalid="ignore"):
        apart = _apart(found.astype(np.float64), wanted, is_integer=is_integer)
    if not apart <= (INTEGER_TOLERANCE if is_integer else TOLERANCE):
        raise TrialError(
            "shipped_graph",
            f"The exported graph's outputs differ from the candidate's by {apart:.1%} of "
            f"{'their spread' if is_integer else 'the largest'}.",
        )


def _apart(found: NDArray[np.float64], wanted: NDArray[np.float64], *, is_integer: bool) -> float:
    """How far outputs lie apart; infinity if other ones are infinite."""
    is_finite = np.isfinite(wanted)
    if not np.array_equal(is_finite, np.isfinite(found)):
        return float("inf")
    error, wanted = (found - wanted)[is_finite], wanted[is_finite]
    if not error.size:
        return 0.0
    if is_integer:
        return float(np.sqrt(np.square(error).mean()) / max(wanted.std(), 1e-12))
    return float(np.abs(error).max() / max(np.abs(wanted).max(), 1e-12))
