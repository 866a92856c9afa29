"""ONNX Runtime: sessions with pinned threads, predictions, and what really runs in integers."""

import collections
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from autocompress.errors import TrialError
from autocompress.onnx_graph.session import make_session
from autocompress.runtime.base import Array, Arrays, InputSpec, Shipment

if TYPE_CHECKING:  # a process that only runs a file must not wait for onnx
    import onnx

_ADVICE = "Please fix either the inputs/outputs or the model."
_INTEGER_OPS: Final = (
    *("QLinear", "QGemm", "MatMulInteger", "ConvInteger"),
    *("DynamicQuantizeMatMul", "DynamicQuantizeLSTM"),
)
_INT8_INPUTS = 4  # accuracy_level of a MatMulNBits that rounds its inputs to 8 bits
_TYPES: Final = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}


class OnnxRuntime:
    """ONNX Runtime on the CPU: the default, and what every bundle has."""

    name = "onnxruntime"
    title = "ONNX Runtime"
    suffix = ".onnx"
    opens = (".onnx", ".acz")
    extra = ""
    packages = ("onnxruntime",)
    has_own_batch = False
    integer_weight_bits = 7  # x86 without VNNI saturates
    is_safe_to_open = True

    def load(self) -> None:
        """Nothing: this file has imported it."""

    def write(self, shipment: Shipment, path: Path, batch_size: int) -> None:
        """Write the graph as it is; see `Runtime.write`."""
        path.write_bytes(shipment.graph.model.SerializeToString())

    def open(self, path: Path, threads: int) -> "_Session":
        """Open a session on an ONNX or a packed file; see `Runtime.open`."""
        if path.suffix != ".acz":
            return _Session(make_session(path, threads))
        from autocompress.packing.packed import read_packed

        return _Session(make_session(read_packed(path).graph, threads))


class _Session:
    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self.inputs = tuple(
            InputSpec(
                name=value.name,
                shape=tuple(d if isinstance(d, int) else None for d in value.shape),
                dtype=_TYPES.get(value.type, value.type),
            )
            for value in session.get_inputs()
        )
        self._names = [spec.name for spec in self.inputs]

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """See `OpenedModel.run`."""
        feed = dict(zip(self._names, arrays, strict=True))
        try:
            outputs: list[Array] = self._session.run(None, feed)
        except Exception as error:  # the runtime raises a dozen classes that share no base
            raise TrialError("runtime", f"{_reason(error)}.") from error
        return outputs


def predict(session: ort.InferenceSession, inputs: Arrays, batch_size: int) -> NDArray[np.generic]:
    """First output for all examples, computed in batches.

    Args:
        session: From `make_session`.
        inputs: One array per input of the graph, examples in dimension 0, at least one.
        batch_size: Examples per call; the last batch may be smaller.

    Returns:
        Shape (N, ...), in the order of the examples.

    Raises:
        TrialError: With reason `runtime` if the runtime stumbles over the graph or the inputs.
    """
    names = [value.name for value in session.get_inputs()]
    first = [session.get_outputs()[0].name]
    feeds = [
        {n: x[i : i + batch_size] for n, x in zip(names, inputs, strict=True)}
        for i in range(0, len(inputs[0]), batch_size)
    ]
    try:
        return np.concatenate([session.run(first, feed)[0] for feed in feeds])
    except Exception as error:  # the runtime raises a dozen classes that share no base
        raise TrialError(
            "runtime", f"ONNX Runtime cannot run the graph: {_reason(error)}."
        ) from error


def _reason(error: Exception) -> str:
    """All that is said of inputs that do not fit, in one line: which size, and what it must be."""
    return " ".join(str(error).replace(_ADVICE, "").split()).rstrip(".")


def executed_ops(model: "onnx.ModelProto | bytes | Path") -> dict[str, int]:
    """How often each operator occurs in the graph after the runtime's own optimisation."""
    return dict(sorted(collections.Counter(n.op_type for n in _executed_nodes(model)).items()))


def executed_integer_nodes(model: "onnx.ModelProto | bytes | Path") -> int:
    """How many operators run in integer arithmetic after the runtime's own optimisation.

    Operators that only turn floats into integers or back do not count.
    """
    return sum(map(_is_integer, _executed_nodes(model)))


def _executed_nodes(model: "onnx.ModelProto | bytes | Path") -> "Sequence[onnx.NodeProto]":
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        make_session(model, threads=1, optimized_path=path)
        return onnx.load(path, load_external_data=False).graph.node


def _is_integer(node: "onnx.NodeProto") -> bool:
    levels = (item.i for item in node.attribute if item.name == "accuracy_level")
    has_int8_inputs = node.op_type == "MatMulNBits" and _INT8_INPUTS in levels
    return has_int8_inputs or node.op_type.startswith(_INTEGER_OPS)
