"""From a tuned candidate to what ships: folded, quantized, ready to pack and to time."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from autocompress.compress.deployable import Deployable, make_deployable
from autocompress.evaluate.timed_inputs import resized_examples
from autocompress.runtime.base import Shipment
from autocompress.runtime.dynamic import dynamic_layers, to_dynamic
from autocompress.runtime.integer import to_integer
from autocompress.runtime.onnx_export import export_onnx
from autocompress.runtime.template import Templates
from autocompress.tasks.base import Inputs
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
    calibration = next(calibration_batches(prepared, _CALIBRATION_EXAMPLES, 1, _CALIBRATION_SEED))
    return _shipped(
        deployable, prepared.example_inputs, tuple(calibration), templates, is_dynamic=is_dynamic
    )


def reshaped(
    shipment: Shipment, shapes: Sequence[tuple[int, ...]], *, is_dynamic: bool = False
) -> Shipment:
    """The same candidate for inputs of another size, to be timed on.

    Args:
        shipment: From `deploy`.
        shapes: Shape of one example for each input, without the batch.
        is_dynamic: As for `deploy`.

    Raises:
        TrialError: If the model takes no such inputs.
    """
    example, calibration = (
        tuple(torch.from_numpy(x) for x in resized_examples(inputs, shapes))
        for inputs in (shipment.example_inputs, shipment.calibration)
    )
    return _shipped(shipment.deployable, example, calibration, None, is_dynamic=is_dynamic)


def _shipped(
    deployable: Deployable,
    example_inputs: Inputs,
    calibration: Inputs,
    templates: Templates | None,
    *,
    is_dynamic: bool,
) -> Shipment:
    exported = export_onnx(deployable.model, example_inputs, deployable.weights, templates)
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
        example_inputs=example_inputs,
        calibration=calibration,
    )
