import numpy as np

from autocompress.errors import TrialError
from autocompress.runtime.base import InputSpec


class OnnxReference:
    """ONNX's own evaluator, in Python: slow, and a second opinion on what a graph computes."""

    name = "onnx_reference"  # as the entry point
    title = "ONNX reference evaluator"
    suffix = ".onnx"
    opens = (".onnx",)
    extra = ""
    packages = ("onnx",)  # their versions belong to every figure
    has_own_batch = False
    integer_weight_bits = 8  # its integers never saturate
    is_safe_to_open = True

    def load(self):
        import onnx.reference  # noqa: F401

    def write(self, shipment, path, batch_size):
        path.write_bytes(shipment.graph.model.SerializeToString())

    def open(self, path, threads):
        from onnx.reference import ReferenceEvaluator

        return OpenedGraph(ReferenceEvaluator(str(path)))


class OpenedGraph:
    def __init__(self, evaluator):
        self.evaluator = evaluator
        self.inputs = tuple(
            InputSpec(
                name=tensor.name,
                shape=tuple(d.dim_value or None for d in tensor.type.tensor_type.shape.dim),
                dtype="float32",
            )
            for tensor in evaluator.proto_.graph.input
        )

    def run(self, arrays):
        named = {spec.name: array for spec, array in zip(self.inputs, arrays, strict=True)}
        try:
            return [np.asarray(output) for output in self.evaluator.run(None, named)]
        except Exception as error:  # operators raise what they like
            raise TrialError("runtime", f"the evaluator raised {error!r}.") from error


ONNX_REFERENCE = OnnxReference()
