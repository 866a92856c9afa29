"""Fold batch-norm into the layer before it, so that codes stay codes.

`gamma / sigma * (W x + b - mean) + beta` is again a layer: every output channel is scaled by
`gamma / sigma`. Of a quantized weight only the scale changes; where gamma is negative the codes
change sign. Dimension key: `O` output channels.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from autocompress.compress.codes import QuantizedTensor
from autocompress.runtime.graph import (
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

Doubles = NDArray[np.float64]


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
    model: onnx.ModelProto, quantized: Mapping[str, QuantizedTensor]
) -> dict[str, QuantizedTensor]:
    """Fold every BatchNormalization that directly follows a Conv, ConvTranspose or Gemm, in place.

    A weight that several layers share is folded if the same batch-norm follows all of them. What
    cannot be folded without leaving the grid of the codes keeps its batch-norm.

    Args:
        model: Changed in place: folded weights, new biases, no folded batch-norms.
        quantized: Initializer name -> codes; the initializers must hold `codes * scale`.

    Returns:
        `quantized` with new scales and signs where a batch-norm was folded.
    """
    graph = model.graph
    values, read_by = constants(graph), readers(graph)
    norm_after = _followers(graph, values)
    result, bypassed = dict(quantized), dict[str, str]()
    for weight in sorted(values):
        layers = read_by.get(weight, [])
        norms = [norm_after[n.output[0]] for n in layers if n.output[0] in norm_after]
        if not norms or len(norms) < len(layers) or not _is_one_fold(weight, layers, norms):
            continue
        norm = _norm(norms[0], values)
        layer = layers[0]
        if weight in result:
            folded = _fold_codes(result[weight], layer, norm)
            if folded is None:
                continue
            result[weight] = folded
            values[weight] = folded.dequantize()
        else:
            values[weight] = _fold_float(values[weight], layer, norm)
        bias = f"{weight.removesuffix('.weight')}.bias"
        old_bias = values[layer.input[2]] if len(layer.input) > 2 else None
        while bias in values and not _is_only_bias_of(bias, layers, read_by):
            bias += "_"
        values[bias] = norm.bias(old_bias)
        for node, after in zip(layers, norms, strict=True):
            node.input[:] = [*node.input[:2], bias]
            bypassed[node.output[0]] = after.output[0]
    _drop_norms(graph, bypassed)
    replace_constants(graph, values)
    return result


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


def _is_one_fold(weight: str, layers: list[onnx.NodeProto], norms: list[onnx.NodeProto]) -> bool:
    """Whether `weight` is the weight of all `layers`, and one fold serves them all."""
    epsilons = {attribute(norm, "epsilon", _DEFAULT_EPSILON) for norm in norms}
    layouts = {(n.op_type, output_axis(n), attribute(n, "group", 1), *n.input[2:]) for n in layers}
    statistics = {tuple(norm.input[1:]) for norm in norms}
    is_weight = all(node.input[1] == weight != node.input[0] for node in layers)
    return is_weight and len(epsilons) == len(layouts) == len(statistics) == 1


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


def _fold_codes(
    weight: QuantizedTensor, layer: onnx.NodeProto, norm: _Norm
) -> QuantizedTensor | None:
    """Fold into scale and sign; None if the scales do not run along the output channels."""
    if weight.axis != output_axis(layer) or len(weight.scale) != len(norm.factor):
        return None
    scale = (weight.scale.astype(np.float64) * np.abs(norm.factor)).astype(np.float32)
    is_dead = scale == 0.0  # gamma is 0: the channel is its bias
    sign = np.where(is_dead, 0, np.where(norm.factor < 0.0, -1, 1))
    shape = [-1 if d == weight.axis else 1 for d in range(weight.codes.ndim)]
    codes = weight.codes.astype(np.int16) * sign.astype(np.int16).reshape(shape)
    if codes.max(initial=0) > np.iinfo(np.int8).max:
        return None  # -(-128) has no int8
    has_grown = codes.max(initial=0) > 2 ** (weight.bits - 1) - 1  # -(-8) is no 4-bit code
    return QuantizedTensor(
        codes=codes.astype(np.int8),
        scale=np.where(is_dead, weight.scale, scale),
        axis=weight.axis,
        bits=weight.bits + int(has_grown),
    )


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
