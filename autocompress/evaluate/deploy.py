"""From a tuned candidate to what ships: folded, quantized, ready to pack and to time."""

import numpy as np
from torch import nn

from autocompress.compress.deployable import make_deployable
from autocompress.runtime.base import Shipment
from autocompress.runtime.integer import to_integer
from autocompress.runtime.onnx_export import export_onnx
from autocompress.runtime.template import Templates
from autocompress.tasks.prepare import PreparedTask
from autocompress.train.recalibrate import calibration_batches

_CALIBRATION_EXAMPLES = 128
_CALIBRATION_SEED = 0


def deploy(
    model: nn.Module, prepared: PreparedTask, templates: Templates | None = None
) -> Shipment:
    """Bring a candidate into the forms that runtimes make their files from.

    Layers with quantized inputs run in integer kernels; all others compute in float32, with weights
    that hold exactly what their codes stand for.

    Args:
        model: A tuned candidate, in eval mode, on the CPU; not modified.
        prepared: Supplies example inputs, and training data to calibrate what lies between layers.
        templates: Graphs of candidates of the same model, see `export_onnx`.

    Raises:
        TrialError: If the model cannot be exported.
    """
    deployable = make_deployable(model)
    graph = export_onnx(deployable.model, prepared.example_inputs, deployable.weights, templates)
    calibration = next(calibration_batches(prepared, _CALIBRATION_EXAMPLES, 1, _CALIBRATION_SEED))
    if deployable.activations:
        arrays = tuple(np.ascontiguousarray(tensor.numpy()) for tensor in calibration)
        graph = to_integer(graph, deployable.activations, arrays)
    return Shipment(
        graph=graph,
        deployable=deployable,
        example_inputs=prepared.example_inputs,
        calibration=tuple(calibration),
    )
