"""Round what quantized layers keep as floats, scales and biases, to what two bytes can hold."""

import collections
import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from autocompress.compress.codes import QuantizedTensor
from autocompress.runtime.graph import Array, constants, readers, replace_constants

_SMALLEST_NORMAL = 2.0**-14
_LARGEST = 65504.0


def round_to_half(values: NDArray[np.float32], *, is_scale: bool) -> NDArray[np.float32]:
    """Round to what float16 can hold, so that two bytes store a value exactly.

    Args:
        values: Any shape, float32.
        is_scale: Scales keep their full precision below float16's normal range, where its relative
            precision ends; biases, of which the absolute error counts, are rounded there as well.
            Values too large for float16 are left as they are.
    """
    size = np.abs(values)
    keep = (size > _LARGEST) | ((size < _SMALLEST_NORMAL) & is_scale)
    clipped = np.clip(values, -_LARGEST, _LARGEST)
    return np.where(keep, values, clipped.astype(np.float16).astype(np.float32))


def halve_scales_and_biases(
    graph: onnx.GraphProto, quantized: Mapping[str, QuantizedTensor]
) -> dict[str, QuantizedTensor]:
    """Round scales and biases of quantized layers to float16 values, in place."""
    values, read_by = constants(graph), readers(graph)
    result = {
        name: dataclasses.replace(tensor, scale=round_to_half(tensor.scale, is_scale=True))
        for name, tensor in quantized.items()
    }
    values.update({name: tensor.dequantize() for name, tensor in result.items()})
    places = [place for name in quantized for place in _biases(name, values, read_by)]
    uses = collections.Counter(node.input[index] for node, index in places)
    for node, index in places:
        bias = node.input[index]
        half = round_to_half(values[bias].astype(np.float32), is_scale=False)
        if uses[bias] < len(read_by[bias]) and not np.array_equal(half, values[bias]):
            bias = node.input[index] = f"{bias}_half"  # float layers read it as well
        values[bias] = half
    replace_constants(graph, values)
    return result


def _biases(
    weight: str, values: Mapping[str, Array], read_by: Mapping[str, list[onnx.NodeProto]]
) -> Iterator[tuple[onnx.NodeProto, int]]:
    """Where the biases of a weight's layers are read: nodes and indices of their inputs."""
    for node in read_by.get(weight, []):
        after = read_by.get(node.output[0], [])
        if node.op_type == "MatMul" and len(after) == 1 and after[0].op_type == "Add":
            yield from ((after[0], i) for i, name in enumerate(after[0].input) if name in values)
        elif node.op_type != "MatMul" and len(node.input) > 2 and node.input[2] in values:
            yield node, 2
