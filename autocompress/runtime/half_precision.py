"""Round what quantized layers keep as floats to two bytes: scales, codebooks, biases."""

import collections
import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from autocompress.compress.codes import (
    CodebookTensor,
    GridTensor,
    HashedTensor,
    StoredWeight,
)
from autocompress.onnx_graph.graph import Array, constants, readers, replace_constants
from autocompress.runtime.recurrent import recurrent_readers

_SMALLEST_NORMAL = 2.0**-14
_LARGEST = 65504.0
_BIASED = ("Conv", "ConvTranspose", "Gemm")
_RECURRENT_BIAS = 3  # index among the inputs of LSTM, GRU and RNN


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


def halve_weight(weight: StoredWeight) -> StoredWeight:
    """The stored weight with scales, and codebook or hashed values, that float16 holds exactly.

    Entries of a codebook are rounded like biases: beside the others a tiny one counts as 0. The
    scale of a channel or block without weights stands for nothing; quantizers leave it tiny, where
    float16 has no numbers and an integer bias no room. It becomes the largest of the others.
    """
    scale = np.where(_is_empty(weight), np.abs(weight.scale).max(initial=0.0), weight.scale)
    scale = np.where(scale == 0.0, weight.scale, scale).astype(np.float32)
    rounded = dataclasses.replace(weight, scale=round_to_half(scale, is_scale=True))
    if isinstance(rounded, CodebookTensor):
        codebook = round_to_half(rounded.codebook, is_scale=False)
        return dataclasses.replace(rounded, codebook=codebook)
    if isinstance(rounded, HashedTensor):
        return dataclasses.replace(rounded, values=round_to_half(rounded.values, is_scale=False))
    return rounded


def _is_empty(weight: StoredWeight) -> NDArray[np.bool_]:
    """Whether a scale, shape (C,) or (C, G), is that of zeros alone."""
    if isinstance(weight, HashedTensor):
        return np.zeros(weight.scale.shape, np.bool_)
    codes = np.moveaxis(weight.codes, weight.axis, 0)
    rows = codes.reshape(len(codes), -1)  # (C, n)
    if isinstance(weight, GridTensor):
        starts = np.arange(0, rows.shape[1], weight.block_size)
        block = np.arange(rows.shape[1]) // weight.block_size
        is_used = rows != weight.zero_point[:, block]
        return ~np.logical_or.reduceat(is_used, starts, axis=1)
    values = weight.codebook[rows] if isinstance(weight, CodebookTensor) else rows
    return ~(values != 0).any(axis=1)


def halve_scales_and_biases(
    graph: onnx.GraphProto, quantized: Mapping[str, StoredWeight]
) -> dict[str, StoredWeight]:
    """Round scales, codebooks and biases of quantized layers to float16 values, in place."""
    values, read_by = constants(graph), readers(graph)
    result = {name: halve_weight(weight) for name, weight in quantized.items()}
    values.update({name: weight.dequantize() for name, weight in result.items()})
    found = (place for name in quantized for place in _biases(name, values, read_by))
    places = {(*node.output, index): (node, index) for node, index in found}
    uses = collections.Counter(node.input[index] for node, index in places.values())
    for node, index in places.values():
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
        elif node.op_type in _BIASED and len(node.input) > 2 and node.input[2] in values:
            yield node, 2
    for node in recurrent_readers(weight, read_by):
        if len(node.input) > _RECURRENT_BIAS and node.input[_RECURRENT_BIAS] in values:
            yield node, _RECURRENT_BIAS
