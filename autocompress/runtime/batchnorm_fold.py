"""Fold batch-norm into the layer before it, so that codes stay codes.

`gamma / sigma * (W x + b - mean) + beta` is again a layer: every output channel is scaled by
`gamma / sigma`. Of a stored weight only the scale changes; where gamma is negative, int8 codes
change sign, since integer kernels want positive scales; other kinds take negative ones.

A weight that is shared by layers with different batch-norms becomes one tensor per batch-norm. They
differ in scales and signs alone, and a packed file stores their codes once. That is smaller than
the batch-norms, 4 bytes a channel against 16, and leaves nothing between integer layers. Float
weights, and those with so many blocks that their scales outweigh it, keep the batch-norms instead.

Dimension key: `O` output channels, `G` blocks of a channel.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from autocompress.compress.codes import (
    Floats,
    GridTensor,
    QuantizedTensor,
    StoredWeight,
    along,
)
from autocompress.onnx_graph.graph import (
    Array,
    attribute,
    constants,
    makers,
    readers,
    replace_constants,
    replace_nodes,
)

_FOLDABLE = ("Conv", "ConvTranspose", "Gemm")
_DEFAULT_EPSILON = 1e-5

_MAX_COPIED_BLOCKS = 7  # scales of 2 bytes and a bias of 2, against 4 floats of a batch-norm

Doubles: TypeAlias = NDArray[np.float64]
Signs: TypeAlias = NDArray[np.integer[Any]]
Fold: TypeAlias = tuple[str | int | float, ...] | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Norm:
    """A batch-norm as `(x - mean) * factor + beta`, each of shape (O,); factor is gamma / sigma."""

    factor: Doubles
    mean: Doubles
    beta: Doubles

    def bias(self, bias: Array | None) -> NDArray[np.float32]:
        """Bias of the folded layer."""
        before = 0.0 if bias is None else bias.astype(np.float64)
        return np.asarray((before - self.mean) * self.factor + self.beta, np.float32)


def fold_batchnorm(
    model: onnx.ModelProto, quantized: Mapping[str, StoredWeight]
) -> dict[str, StoredWeight]:
    """Fold every BatchNormalization that directly follows a Conv, ConvTranspose or Gemm, in place.

    What cannot be folded without leaving the values that a stored weight can take keeps its
    batch-norm.

    Args:
        model: Changed in place: folded weights, new biases, no folded batch-norms.
        quantized: Initializer name -> what it is stored as, bit for bit, in its own layout.

    Returns:
        `quantized` with new scales and signs where a batch-norm was folded, and with the copies of
        shared weights.
    """
    graph = model.graph
    values, read_by = constants(graph), readers(graph)
    norm_after = _followers(graph, values)
    result, bypassed = dict(quantized), dict[str, str]()
    for weight in sorted(values):
        parts = _by_norm(weight, read_by.get(weight, []), norm_after)
        folds = _folds(quantized.get(weight, values[weight]), parts, norm_after, values)
        is_replaced = len(folds) == len(parts)
        for nodes, folded, norm in folds:
            name = weight if is_replaced else f"{nodes[0].name or weight}.weight"
            while name in values and not is_replaced:
                name += "_"
            is_replaced = False  # the others are copies
            if isinstance(folded, np.ndarray):
                values[name] = folded
            else:
                result[name], values[name] = folded, folded.dequantize()
            bias = f"{name.removesuffix('.weight')}.bias"
            old_bias = values[nodes[0].input[2]] if len(nodes[0].input) > 2 else None
            while bias in values and not _is_only_bias_of(bias, nodes, read_by):
                bias += "_"
            values[bias] = norm.bias(old_bias)
            for node in nodes:
                bypassed[node.output[0]] = norm_after[node.output[0]].output[0]
                node.input[:] = [node.input[0], name, bias]
    _drop_norms(graph, bypassed)
    replace_constants(graph, values)
    read = readers(graph)
    return {name: stored for name, stored in result.items() if name in read}


def output_axis(node: onnx.NodeProto) -> int:
    """Dimension of a layer's weight (`node.input[1]`) that its output channels run along."""
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    return 1 if node.op_type in ("ConvTranspose", "MatMul") else 0


def _followers(graph: onnx.GraphProto, values: Mapping[str, Array]) -> dict[str, onnx.NodeProto]:
    """Output of a layer -> the batch-norm that alone reads it."""
    made_by, read_by = makers(graph), readers(graph)
    outputs = {value.name for value in graph.output}
    found: dict[str, onnx.NodeProto] = {}
    for node in graph.node:
        is_plain = (
            node.op_type == "BatchNormalization"
            and len(node.output) == 1
            and not attribute(node, "training_mode", 0)
            and all(name in values for name in node.input[1:])
        )
        layer = made_by.get(node.input[0]) if is_plain else None
        if layer is None or layer.op_type not in _FOLDABLE or layer.output[0] in outputs:
            continue
        has_plain_bias = len(layer.input) < 3 or layer.input[2] in values
        is_scaled = attribute(layer, "alpha", 1.0) != 1.0 or attribute(layer, "beta", 1.0) != 1.0
        if len(read_by[layer.output[0]]) == 1 and has_plain_bias and not is_scaled:
            found[layer.output[0]] = node
    return found


def _by_norm(
    weight: str, layers: list[onnx.NodeProto], norm_after: Mapping[str, onnx.NodeProto]
) -> dict[Fold, list[onnx.NodeProto]]:
    """Nodes that read `weight`, by the fold that serves them; None for those without one."""
    found: dict[Fold, list[onnx.NodeProto]] = {}
    for node in layers:
        norm = norm_after.get(node.output[0])
        fold: Fold = None
        if norm is not None and node.input[1] == weight != node.input[0]:
            epsilon = attribute(norm, "epsilon", _DEFAULT_EPSILON)
            layout = (node.op_type, output_axis(node), attribute(node, "group", 1))
            fold = (*layout, *node.input[2:], "|", *norm.input[1:], epsilon)
        found.setdefault(fold, []).append(node)
    return found


def _folds(
    weight: StoredWeight | Array,
    parts: Mapping[Fold, list[onnx.NodeProto]],
    norm_after: Mapping[str, onnx.NodeProto],
    values: Mapping[str, Array],
) -> list[tuple[list[onnx.NodeProto], StoredWeight | Array, _Norm]]:
    """Layers of each fold that is possible and worthwhile, their folded weight, and the norm."""
    if len(parts) > 1 and not _is_cheap_to_copy(weight):
        return []
    found: list[tuple[list[onnx.NodeProto], StoredWeight | Array, _Norm]] = []
    for fold, nodes in parts.items():
        if fold is None:
            continue
        norm = _norm(norm_after[nodes[0].output[0]], values)
        if isinstance(weight, np.ndarray):
            found.append((nodes, _fold_float(weight, nodes[0], norm), norm))
        elif (folded := fold_stored(weight, output_axis(nodes[0]), norm.factor)) is not None:
            found.append((nodes, folded, norm))
    return found


def _is_cheap_to_copy(weight: StoredWeight | Array) -> bool:
    """Whether another set of scales is smaller than a batch-norm."""
    if isinstance(weight, GridTensor):
        return weight.scale.shape[1] <= _MAX_COPIED_BLOCKS
    return not isinstance(weight, np.ndarray)


def _norm(node: onnx.NodeProto, values: Mapping[str, Array]) -> _Norm:
    gamma, beta, mean, variance = (values[name].astype(np.float64) for name in node.input[1:5])
    epsilon = attribute(node, "epsilon", _DEFAULT_EPSILON)
    return _Norm(factor=gamma / np.sqrt(variance + epsilon), mean=mean, beta=beta)


def _fold_float(weight: Array, layer: onnx.NodeProto, norm: _Norm) -> NDArray[np.float32]:
    axis = output_axis(layer)
    if layer.op_type == "ConvTranspose":  # (I, O / groups, K): rows of a group meet its channels
        n_groups = int(attribute(layer, "group", 1))
        factor = norm.factor.reshape(n_groups, -1).repeat(weight.shape[0] // n_groups, axis=0)
        factor = factor.reshape(*factor.shape, *[1] * (weight.ndim - 2))
    else:
        factor = norm.factor.reshape([-1 if d == axis else 1 for d in range(weight.ndim)])
    return (weight.astype(np.float64) * factor).astype(np.float32)


def fold_stored(weight: StoredWeight, axis: int, factor: Doubles) -> StoredWeight | None:
    """Multiply every output channel by a factor, in scales and signs alone.

    Args:
        weight: In the layout of the graph.
        axis: Dimension of the output channels.
        factor: Shape (O,); 0 makes a channel all zeros.

    Returns:
        None if the scales do not run along the output channels, or the values cannot be expressed.
    """
    if weight.axis != axis or len(weight.scale) != len(factor):
        return None
    wide = factor if weight.scale.ndim == 1 else factor[:, None]
    scale = (weight.scale.astype(np.float64) * wide).astype(np.float32)
    is_lost = scale == 0.0  # gamma is 0: the channel is its bias
    scale = np.where(is_lost, weight.scale, scale)
    if isinstance(weight, QuantizedTensor):
        sign = np.where(is_lost, 0, np.where(factor < 0.0, -1, 1))
        return _with_signs(weight, sign, np.abs(scale))
    if not is_lost.any():
        return dataclasses.replace(weight, scale=scale)
    if isinstance(weight, GridTensor) and bool((is_lost.all(axis=1) == is_lost.any(axis=1)).all()):
        return dataclasses.replace(weight, codes=_emptied(weight, is_lost[:, 0]), scale=scale)
    return None


def _with_signs(weight: QuantizedTensor, sign: Signs, scale: Floats) -> QuantizedTensor | None:
    codes = weight.codes.astype(np.int16) * along(
        sign.astype(np.int16), weight.axis, weight.codes.ndim
    )
    if codes.max(initial=0) > np.iinfo(np.int8).max:
        return None  # -(-128) has no int8
    has_grown = codes.max(initial=0) > 2 ** (weight.bits - 1) - 1  # -(-8) is no 4-bit code
    return dataclasses.replace(
        weight, codes=codes.astype(np.int8), scale=scale, bits=weight.bits + int(has_grown)
    )


def _emptied(weight: GridTensor, is_empty: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Codes whose empty channels, shape (O,), hold the zero points of their blocks."""
    rows = np.moveaxis(weight.codes, weight.axis, 0).copy()  # (O, ...)
    n_weights = rows[0].size
    block = np.arange(n_weights) // weight.block_size
    rows[is_empty] = weight.zero_point[is_empty][:, block].reshape(-1, *rows.shape[1:])
    return np.ascontiguousarray(np.moveaxis(rows, 0, weight.axis))


def _is_only_bias_of(
    bias: str, layers: list[onnx.NodeProto], read_by: Mapping[str, list[onnx.NodeProto]]
) -> bool:
    return {n.output[0] for n in read_by.get(bias, [])} <= {n.output[0] for n in layers}


def _drop_norms(graph: onnx.GraphProto, bypassed: Mapping[str, str]) -> None:
    """Let the layers write what their batch-norms wrote: layer output -> batch-norm output."""
    gone = set(bypassed.values())
    kept = [
        n for n in graph.node if not (n.op_type == "BatchNormalization" and n.output[0] in gone)
    ]
    for node in kept:
        node.output[:] = [bypassed.get(name, name) for name in node.output]
    replace_nodes(graph, kept)
