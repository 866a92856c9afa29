"""Does a loaded model compute what the file's graph does? Asked of ONNX Runtime."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autocompress.errors import InputError
from autocompress.onnx_graph.session import make_session
from autocompress.tasks.base import Inputs

_BATCH = 2  # one example would be taken for a dimension that is always 1


def inputs_for(
    graph: onnx.ModelProto, given: Tensor | Inputs | None, generator: torch.Generator
) -> Inputs:
    """Inputs of a graph, two examples at least.

    Args:
        graph: Its inputs have examples in dimension 0, of free size.
        given: What the user gave; None makes inputs up: normal noise, or zeros and ones for
            integers.
        generator: Of the noise.

    Raises:
        InputError: If the given inputs do not fit the graph, or its shapes are not known.
    """
    if given is None:
        return tuple(_made_up(value, generator) for value in graph.graph.input)
    inputs = tuple(given) if isinstance(given, tuple | list) else (given,)
    if not all(isinstance(x, Tensor) and x.ndim > 0 and len(x) > 0 for x in inputs):
        raise InputError(
            "`example_inputs` must be one tensor for each input of the model, with at least one "
            f"example in dimension 0, but got {', '.join(map(_kind, inputs))}."
        )
    if len(inputs) != len(graph.graph.input) or not all(map(_fits, inputs, graph.graph.input)):
        raise InputError(
            "`example_inputs` must be what the file's graph takes, "
            f"{', '.join(map(_signature, graph.graph.input))}, but are "
            f"{', '.join(map(_kind, inputs))}.",
            "A packed file computes with the shapes that it was exported with.",
        )
    inputs = tuple(x.detach().cpu() for x in inputs)
    return tuple(torch.cat([x, x]) if len(x) == 1 else x for x in inputs)


def _made_up(value: onnx.ValueInfoProto, generator: torch.Generator) -> Tensor:
    sizes, dtype = _sizes(value), _dtype(value)
    if not value.type.tensor_type.shape.dim or not all(sizes):
        raise InputError(
            f"Inputs of the file's graph must have known shapes, but {_signature(value)} has not.",
            "Give `example_inputs`.",
        )
    shape = (_BATCH, *sizes)
    try:
        if dtype.is_floating_point:
            return torch.randn(shape, generator=generator, dtype=dtype)
        return torch.randint(0, 2, shape, generator=generator).to(dtype)
    except (RuntimeError, TypeError) as error:  # sizes that no memory, or no int64, can hold
        raise InputError(
            f"Inputs of the file's graph must fit in memory, but {_signature(value)} does not."
        ) from error


def _sizes(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """Sizes of an input's dimensions after the first; 0 for those that are free."""
    dims = value.type.tensor_type.shape.dim[1:]
    return tuple(dim.dim_value if dim.HasField("dim_value") else 0 for dim in dims)


def _dtype(value: onnx.ValueInfoProto) -> torch.dtype:
    kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    return torch.from_numpy(np.empty(0, kind)).dtype


def _fits(x: Tensor, value: onnx.ValueInfoProto) -> bool:
    sizes = _sizes(value)
    return (
        x.dtype == _dtype(value)
        and len(sizes) == x.ndim - 1
        and all(want in (0, size) for want, size in zip(sizes, x.shape[1:], strict=True))
    )


def _signature(value: onnx.ValueInfoProto) -> str:
    sizes = ["N", *(str(size or "?") for size in _sizes(value))]
    return f"{_dtype(value)} ({', '.join(sizes)})"


def _kind(x: Any) -> str:
    return f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__


FLOAT_TOLERANCE: Final = 1e-3  # of the largest output; sums in another order differ by about 1e-6
GRID_TOLERANCE: Final = 0.15  # with 8-bit activations: the file rounds between layers as well
_N_RANDOM = 2


def check_agreement(
    model: nn.Module, graph: onnx.ModelProto, inputs: Inputs, generator: torch.Generator
) -> None:
    """Compare a model with a graph on inputs and on random ones of their shapes and ranges.

    Args:
        model: In eval mode, on the CPU.
        graph: What it must compute.
        inputs: Inputs of both, each of shape (N, ...).
        generator: Of the random inputs.

    Raises:
        InputError: If outputs differ by more than rounding.
    """
    has_grids = any(node.op_type == "QuantizeLinear" for node in graph.graph.node)
    tolerance = GRID_TOLERANCE if has_grids else FLOAT_TOLERANCE
    session = make_session(graph, threads=1)
    names = [value.name for value in session.get_inputs()]
    for batch in (inputs, *(_random_like(inputs, generator) for _ in range(_N_RANDOM))):
        arrays = [np.ascontiguousarray(tensor.numpy()) for tensor in batch]
        theirs = session.run(None, dict(zip(names, arrays, strict=True)))
        with torch.no_grad():
            ours = [tensor.numpy() for tensor in tensors_of(model(*batch))]
        _compare(ours, theirs, tolerance)


def tensors_of(outputs: object) -> Iterator[Tensor]:
    """All tensors of a model's outputs, in the order in which exporters list them."""
    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, Mapping):
        for value in outputs.values():
            yield from tensors_of(value)
    elif isinstance(outputs, tuple | list):
        for value in outputs:
            yield from tensors_of(value)


def _random_like(inputs: Inputs, generator: torch.Generator) -> Inputs:
    """Inputs of the same shapes: normal of the same moments, or integers of the same range."""
    drawn = []
    for x in inputs:
        if x.is_floating_point():
            spread = float(x.std(correction=0)) or 1.0
            noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
            drawn.append(noise * spread + x.mean())
        else:
            low, high = int(x.min()), int(x.max())
            numbers = torch.randint(low, high + 1, x.shape, generator=generator)
            drawn.append(numbers.to(x.dtype))
    return tuple(drawn)


def _compare(ours: list[NDArray[Any]], theirs: list[NDArray[Any]], tolerance: float) -> None:
    shapes, wanted = ([list(array.shape) for array in arrays] for arrays in (ours, theirs))
    if shapes != wanted:
        raise InputError(
            f"The model must return what the file's graph does, outputs of shapes {wanted}, but "
            f"returns {shapes}.",
            "Give a model of the architecture that was packed.",
        )
    for i, (mine, yours) in enumerate(zip(ours, theirs, strict=True)):
        error = _error(mine.astype(np.float64), yours.astype(np.float64))
        if not error <= tolerance:
            raise InputError(
                f"The loaded model must compute what the file does, but output {i} differs by "
                f"{error:.2g} of the largest value, more than {tolerance:g}.",
                "Use the unpacked ONNX file (`autocompress unpack`) instead.",
            )


def _error(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    """Largest difference, as a share of the largest value; infinite if only one is not finite."""
    is_finite = np.isfinite(theirs)
    if not np.array_equal(is_finite, np.isfinite(ours)):
        return float("inf")
    largest = np.abs(theirs[is_finite]).max(initial=0.0)
    difference = np.abs(ours[is_finite] - theirs[is_finite]).max(initial=0.0)
    return float(difference / max(largest, np.finfo(np.float32).tiny))
