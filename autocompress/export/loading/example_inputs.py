"""Inputs to trace and to compare a model with: the user's, or made up from a graph."""

from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor

from autocompress.errors import InputError
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
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator, dtype=dtype)
    return torch.randint(0, 2, shape, generator=generator).to(dtype)


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
