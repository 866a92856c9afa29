"""From a tuned candidate to the graph that ships: folded, quantized, ready to pack and to time."""

import numpy as np
from torch import nn

from autocompress.compress.deployable import make_deployable
from autocompress.runtime.integer import to_integer
from autocompress.runtime.onnx_export import ExportedGraph, export_onnx
from autocompress.tasks.prepare import PreparedTask
from autocompress.train.recalibrate import calibration_batches

_CALIBRATION_EXAMPLES = 128
_CALIBRATION_SEED = 0


def deploy(model: nn.Module, prepared: PreparedTask) -> ExportedGraph:
    """Export a candidate as the runtime will run it.

    Layers with quantized inputs run in integer kernels; all others compute in float32, with weights
    that hold exactly what their codes stand for.

    Args:
        model: A tuned candidate, in eval mode, on the CPU; not modified.
        prepared: Supplies example inputs, and training data to calibrate what lies between layers.

    Raises:
        TrialError: If the model cannot be exported.
    """
    deployable = make_deployable(model)
    exported = export_onnx(deployable.model, prepared.example_inputs, deployable.weights)
    if not deployable.activations:
        return exported
    batches = calibration_batches(prepared, _CALIBRATION_EXAMPLES, 1, _CALIBRATION_SEED)
    calibration = tuple(np.ascontiguousarray(tensor.numpy()) for tensor in next(batches))
    return to_integer(exported, deployable.activations, calibration)
