"""From a tuned candidate to what ships: folded, quantized, ready to pack and to time."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from autocompress.compress.quantize import Deployable, make_deployable
from autocompress.errors import InputError
from autocompress.runtime.base import Array, Arrays, Shipment
from autocompress.runtime.dynamic import dynamic_layers, to_dynamic
from autocompress.runtime.integer import to_integer
from autocompress.runtime.onnx_export import export_onnx
from autocompress.runtime.template import Templates
from autocompress.tasks.base import Inputs
from autocompress.tasks.prepare import PreparedTask
from autocompress.train.recalibrate import calibration_batches

Shape = tuple[int, ...]


def timed_inputs(
    example_inputs: Inputs, batch_size: int, shapes: Sequence[Shape] | None = None
) -> Arrays:
    """Inputs of one inference.

    Args:
        example_inputs: Inputs of shape (N, ...); examples are repeated where there are too few.
        batch_size: Examples of an inference.
        shapes: Shape of one example for each input, without the batch; values are repeated or left
            out along each dimension to reach it. None leaves them as they are.

    Raises:
        InputError: If the shapes do not fit the inputs.
    """
    arrays = resized_examples(example_inputs, shapes)
    return tuple(
        np.ascontiguousarray(_resized(array, (batch_size, *array.shape[1:]))) for array in arrays
    )


def resized_examples(inputs: Inputs, shapes: Sequence[Shape] | None) -> tuple[Array, ...]:
    """Examples of other shapes; see `timed_inputs`."""
    arrays: tuple[Array, ...] = tuple(tensor.numpy() for tensor in inputs)
    if shapes is None:
        return arrays
    if [len(shape) for shape in shapes] != [array.ndim - 1 for array in arrays]:
        raise InputError(
            f"`input_shapes` must fit the model's inputs, of shapes "
            f"{' and '.join(_text(array.shape[1:]) for array in arrays)}, "
            f"but got {' and '.join(map(_text, shapes))}.",
            "Give it once for each input, without the batch.",
        )
    return tuple(_resized(a, (len(a), *shape)) for a, shape in zip(arrays, shapes, strict=True))


def _resized(array: Array, shape: Shape) -> Array:
    """Repeated or cut along each dimension."""
    for dim, size in enumerate(shape):
        array = np.take(array, np.arange(size) % array.shape[dim], axis=dim)
    return array


def _text(shape: Sequence[int]) -> str:
    return ",".join(map(str, shape))


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
        is_dynamic: Whether integer layers other than convolutions find their activation grids when
            they run, see `runtime.dynamic`.

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
