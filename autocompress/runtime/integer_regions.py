"""Which part of an exported graph runs in integers, and which values need a grid for it."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import onnx

from autocompress.compress.codes import ActivationRange, QuantizedTensor
from autocompress.onnx_graph.exported_graph import ExportedGraph
from autocompress.onnx_graph.graph import Array, attribute, constants, makers, readers
from autocompress.runtime.batchnorm_fold import output_axis
from autocompress.runtime.integer_codes import to_integer_codes

INTEGER_LAYERS = ("Conv", "Gemm", "MatMul")  # ConvTranspose has no integer kernel on CPUs
MOVING = ("MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Pad")
_ARITHMETIC = ("Add", "Mul", "AveragePool", "GlobalAveragePool", "Concat")
_CLAMPS = ("Relu", "Clip")
_FLOAT_OUTPUT = ("Gemm", "MatMul")  # their integer kernels can write floats
_LARGEST_BIAS = 2.0**28
# Right behind a Gemm without a pair, ONNX Runtime fuses them into it, and it stays float.
_FUSED_INTO_GEMM = {
    *("Relu", "Clip", "LeakyRelu", "Elu", "Selu", "Sigmoid", "Tanh"),
    *("HardSigmoid", "Softplus", "Softsign", "ThresholdedRelu"),
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class IntegerRegions:
    """What runs in integers. Nodes are told apart by the name of their first output.

    Attributes:
        layers: Node of an integer layer -> given grid of its input.
        weights: Initializer that integer layers read as their weight -> its codes.
        nodes: All integer nodes: layers, arithmetic, data movement, clamps.
        root_of: Quantized value -> the value whose integers it holds; a root is its own.
    """

    layers: Mapping[str, ActivationRange]
    weights: Mapping[str, QuantizedTensor]
    nodes: frozenset[str]
    root_of: Mapping[str, str]


def find_regions(
    graph: onnx.GraphProto,
    exported: ExportedGraph,
    activations: Mapping[str, ActivationRange],
) -> IntegerRegions:
    """Find the layers that run in integers, what lies between them, and the values they exchange.

    Args:
        graph: The float graph; not changed.
        exported: What is known about its weights.
        activations: Layer name -> grid of its input; other layers stay float.
    """
    values, made_by, read_by = constants(graph), makers(graph), readers(graph)
    layers, weights = _integer_layers(graph, exported, activations)
    nodes = _reachable(graph, values, layers)
    paired: list[str] = []
    for node in graph.node:
        name = node.output[0]
        if name not in nodes:
            continue
        if node.op_type not in _CLAMPS:
            paired.extend(_data_inputs(node))
        after = read_by.get(name, [])
        is_fused = node.op_type == "Gemm" and {n.op_type for n in after} & _FUSED_INTO_GEMM
        is_read = any(n.output[0] in nodes for n in after)
        if node.op_type in _FLOAT_OUTPUT and not is_read and not is_fused:
            continue
        if node.op_type not in MOVING and len(after) == 1 and is_clamp(after[0], values):
            nodes.add(after[0].output[0])  # the pair goes behind the clamp, which it replaces
        else:
            paired.append(name)

    def root(name: str) -> str:
        node = made_by.get(name)
        is_moved = node is not None and node.op_type in MOVING and name in nodes
        return root(node.input[0]) if node is not None and is_moved else name

    root_of = {name: root(name) for name in dict.fromkeys(paired)}
    root_of.update({name: name for name in tuple(root_of.values())})
    return IntegerRegions(layers=layers, weights=weights, nodes=frozenset(nodes), root_of=root_of)


def _integer_layers(
    graph: onnx.GraphProto, exported: ExportedGraph, activations: Mapping[str, ActivationRange]
) -> tuple[dict[str, ActivationRange], dict[str, QuantizedTensor]]:
    by_name = {node.name: node for node in graph.node if node.name}
    values = constants(graph)
    layers: dict[str, ActivationRange] = {}
    weights: dict[str, QuantizedTensor] = {}
    for layer, given in activations.items():
        for name in exported.layer_nodes.get(layer, ()):
            node = by_name[name]
            weight = node.input[1]
            is_plain = not attribute(node, "transA", 0) and all(
                attribute(node, key, 1.0) == 1.0 for key in ("alpha", "beta")
            )
            if node.op_type not in INTEGER_LAYERS or weight not in exported.quantized:
                continue
            if node.input[0] in values:  # such a layer is a constant, computed once when loaded
                continue
            codes = weights.get(weight) or to_integer_codes(exported.quantized[weight])
            if codes is None or codes.axis != output_axis(node):
                continue
            bias_name = node.input[2] if len(node.input) > 2 else ""
            if bias_name and bias_name not in values:
                continue
            if is_plain and _has_room(values.get(bias_name), codes, given):
                layers[node.output[0]], weights[weight] = given, codes
    return layers, weights


def _has_room(bias: Array | None, codes: QuantizedTensor, given: ActivationRange) -> bool:
    """Whether a bias fits int32 in steps of the products, also on a somewhat narrower grid."""
    if bias is None or bias.shape != codes.scale.shape:
        return bias is None
    steps = np.abs(bias.astype(np.float64)) / (codes.scale.astype(np.float64) * given.scale)
    return bool((steps < _LARGEST_BIAS).all())


def _reachable(
    graph: onnx.GraphProto, values: Mapping[str, Array], layers: Mapping[str, ActivationRange]
) -> set[str]:
    """The layers and what lies between them: fed by integers, and read by an integer node."""
    nodes = set(layers)
    read_by = readers(graph)
    available = {node.input[0] for node in graph.node if node.output[0] in layers}
    for node in graph.node:
        if _is_eligible(node, values) and available.issuperset(_data_inputs(node)):
            nodes.add(node.output[0])
        if node.output[0] in nodes:
            available.add(node.output[0])
    for node in reversed(graph.node):
        name = node.output[0]
        is_wanted = any(after.output[0] in nodes for after in read_by.get(name, []))
        if name in nodes and name not in layers and not is_wanted:
            nodes.remove(name)
    return nodes


def _is_eligible(node: onnx.NodeProto, values: Mapping[str, Array]) -> bool:
    if node.op_type in _ARITHMETIC:
        return not any(name in values for name in node.input)
    if node.op_type == "Pad":
        fill = values.get(node.input[2], np.zeros(1)) if len(node.input) > 2 else np.zeros(1)
        mode = next((a.s for a in node.attribute if a.name == "mode"), b"constant")
        return mode != b"constant" or not fill.any()
    return (node.op_type in MOVING and len(node.output) == 1) or is_clamp(node, values)


def is_clamp(node: onnx.NodeProto, values: Mapping[str, Array]) -> bool:
    """Whether a node is a Relu, or a Clip with constant bounds."""
    return node.op_type in _CLAMPS and all(name in values for name in node.input[1:] if name)


def _data_inputs(node: onnx.NodeProto) -> list[str]:
    return list(node.input) if node.op_type in _ARITHMETIC else [node.input[0]]
