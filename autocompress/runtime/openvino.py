"""OpenVINO: its own file from the same ONNX graph, integer layers and all."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from autocompress.errors import TrialError
from autocompress.runtime.base import Array, InputSpec, Shipment

if TYPE_CHECKING:
    import openvino as ov

_TYPES: Final = {
    **{f"f{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"{kind}{bits}": f"{name}{bits}" for kind, name in (("i", "int"), ("u", "uint"))
       for bits in (8, 16, 32, 64)},
    "boolean": "bool",
}  # fmt: skip


class OpenVino:
    """OpenVINO on the CPU.

    It reads the QDQ graph that ONNX Runtime runs, and fuses it to integer kernels of its own. What
    is not integer it computes in bfloat16 where the processor can, unless told otherwise: so there
    are two runtimes, one for each precision, and a float baseline is a float baseline.

    Args:
        name: As options call it.
        precision: `f32` or `bf16`, of all that is not integer.
    """

    suffix = ".xml"
    opens = (".xml", ".onnx")
    extra = "openvino"
    packages = ("openvino",)
    has_own_batch = False
    integer_weight_bits = 7  # x86 without VNNI saturates
    is_safe_to_open = True

    def __init__(self, name: str, precision: str) -> None:
        self.name = name
        self.title = "OpenVINO" if precision == "f32" else f"OpenVINO ({precision})"
        self._precision = precision

    def load(self) -> None:
        """Import OpenVINO and start its plugin for CPUs."""
        import openvino as ov

        ov.Core().get_property("CPU", "FULL_DEVICE_NAME")

    def write(self, shipment: Shipment, path: Path, batch_size: int) -> None:
        """Write `.xml` and `.bin`; see `Runtime.write`."""
        import openvino as ov

        onnx = path.with_suffix(".onnx_")
        try:
            onnx.write_bytes(shipment.static_graph.model.SerializeToString())
            ov.save_model(ov.Core().read_model(onnx), path, compress_to_fp16=False)
        except (RuntimeError, ValueError) as error:
            raise TrialError("runtime", f"OpenVINO refuses the graph: {_reason(error)}.") from error
        finally:
            onnx.unlink(missing_ok=True)

    def open(self, path: Path, threads: int) -> "_Compiled":
        """Compile a file, `.xml` or `.onnx`; see `Runtime.open`."""
        import openvino as ov

        options = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": self._precision,
        }
        try:
            return _Compiled(ov.Core().compile_model(path, "CPU", options))
        except RuntimeError as error:
            raise TrialError("runtime", f"OpenVINO refuses the file: {_reason(error)}.") from error


class _Compiled:
    def __init__(self, model: "ov.CompiledModel") -> None:
        self._request = model.create_infer_request()
        self.inputs = tuple(
            InputSpec(
                name=port.get_any_name(),
                shape=tuple(None if d.is_dynamic else d.get_length() for d in port.partial_shape),
                dtype=_TYPES.get(port.element_type.get_type_name(), "unknown"),
            )
            for port in model.inputs
        )
        self._n_outputs = len(model.outputs)

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """See `OpenedModel.run`."""
        try:
            found: Any = self._request.infer(list(arrays), share_inputs=True)
        except (RuntimeError, ValueError) as error:
            raise TrialError("runtime", f"{_reason(error)}.") from error
        return [found[i] for i in range(self._n_outputs)]


def _reason(error: Exception) -> str:
    """The line that says what is wrong: others say where in its sources it was noticed."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    reason, *others = telling or lines or [type(error).__name__]
    named = next((line for line in others if "operation" in line.lower()), "")
    if named:
        return f"{reason.rstrip('.:')}: {named.lstrip('- ')}".rstrip(".")
    while reason.endswith(":") and others:  # a heading
        reason = f"{reason} {others.pop(0)}"
    return reason.rstrip(".")
