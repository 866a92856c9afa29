"""From a tuned candidate to what ships: folded, quantized, ready to pack and to time."""

import numpy as np
from torch import nn

from autocompress.compress.deployable import make_deployable
from autocompress.runtime.base import Shipment
from autocompress.runtime.dynamic import dynamic_layers, to_dynamic
from autocompress.runtime.integer import to_integer
from autocompress.runtime.onnx_export import export_onnx
from autocompress.runtime.template import Templates
from autocompress.tasks.prepare import PreparedTask
from autocompress.train.recalibrate import calibration_batches

_CALIBRATION_EXAMPLES = 128
_CALIBRATION_SEED = 0
_BATCH = 64


def deploy(
    model: nn.Module,
    prepared: PreparedTask,
    templates: Templates | None = None,
    *,
    is_dynamic: bool = False,
) -> Shipment:
    """Bring a candidate into the forms that runtimes make their files from.

    Layers with quantized inputs run in integer kernels; all others compute in float32, with weights
    that hold exactly what their codes stand for.

    Args:
        model: A tuned candidate, in eval mode, on the CPU; not modified.
        prepared: Supplies example inputs, and training data to calibrate what lies between layers.
        templates: Graphs of candidates of the same model, see `export_onnx`.
        is_dynamic: Whether integer layers other than convolutions find their input grids when they
            run, see `runtime.dynamic`.

    Raises:
        TrialError: If the model cannot be exported.
    """
    deployable = make_deployable(model)
    exported = export_onnx(deployable.model, prepared.example_inputs, deployable.weights, templates)
    calibration = next(calibration_batches(prepared, _CALIBRATION_EXAMPLES, 1, _CALIBRATION_SEED))
    graph = static = exported
    if grids := deployable.activations:
        arrays = tuple(
            tuple(np.ascontiguousarray(tensor.numpy()) for tensor in batch)
            for batch in zip(*(tensor.split(_BATCH) for tensor in calibration), strict=True)
        )
        graph = static = to_integer(exported, grids, arrays)
        dynamic = dynamic_layers(exported, grids) if is_dynamic else ()
        if dynamic:
            others = {name: grid for name, grid in grids.items() if name not in dynamic}
            graph = to_dynamic(to_integer(exported, others, arrays), dynamic)
    return Shipment(
        graph=graph,
        static_graph=static,
        deployable=deployable,
        example_inputs=prepared.example_inputs,
        calibration=tuple(calibration),
    )
