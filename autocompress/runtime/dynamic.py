"""Let matrix products and LSTMs run in integers on grids that each inference chooses for itself.

The range of every input is looked up when the model runs (dynamic quantization), so nothing has to
be calibrated and values between layers stay float. ONNX Runtime has kernels for matrix products and
LSTMs; of convolutions its dynamic form is many times slower than floats, so those are left alone.

Dimension key: `D` directions, `H` hidden units, `X` inputs.
"""

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from typing import Final

import numpy as np
import onnx
from onnx import helper

from autocompress.compress.codes import QuantizedTensor
from autocompress.onnx_graph.exported_graph import ExportedGraph
from autocompress.onnx_graph.graph import (
    Array,
    attribute,
    constants,
    drop_unread,
    makers,
    readers,
    replace_constants,
    replace_nodes,
    unused,
)
from autocompress.runtime.batchnorm_fold import output_axis
from autocompress.runtime.integer_codes import to_integer_codes
from autocompress.runtime.recurrent import GATES

_DOMAIN: Final = "com.microsoft"
_FLOAT: Final = onnx.TensorProto.FLOAT


def to_dynamic(exported: ExportedGraph, layers: Collection[str]) -> ExportedGraph:
    """Rewrite a float graph so that layers run in integer kernels with dynamic activation grids.

    Args:
        exported: From `export_onnx` or `to_integer`; not changed.
        layers: Names. Layers whose weight is not exactly int8 codes times a scale per channel, and
            kinds that have no such kernel, stay float.

    Returns:
        A graph whose integer layers hold their codes as int8 initializers; `not_integer` also names
        those of `layers` that had to stay float.
    """
    if not layers:
        return exported
    model = onnx.ModelProto.FromString(exported.model.SerializeToString())
    rewriter = _Rewriter(model.graph, exported)
    done = rewriter.rewrite(layers)
    if not done:
        return dataclasses.replace(
            exported, not_integer=tuple(sorted({*exported.not_integer, *layers}))
        )
    if rewriter.has_lstm and all(o.domain != _DOMAIN for o in model.opset_import):
        model.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    drop_unread(model.graph)
    kept = {i.name for i in model.graph.initializer if i.data_type == _FLOAT}
    return dataclasses.replace(
        exported,
        model=model,
        quantized={name: t for name, t in exported.quantized.items() if name in kept},
        not_integer=tuple(sorted({*exported.not_integer, *layers} - done)),
    )


class _Rewriter:
    """Replaces nodes of one graph, in place."""

    def __init__(self, graph: onnx.GraphProto, exported: ExportedGraph) -> None:
        self.graph = graph
        self.exported = exported
        self.values = constants(graph)
        self.read_by = readers(graph)
        self.made_by = makers(graph)
        self.has_lstm = False
        self._inputs: dict[str, tuple[str, str, str]] = {}
        self._taken = frozenset(self.values)

    def rewrite(self, layers: Collection[str]) -> set[str]:
        """Replace the nodes of layers; the layers of which all nodes could be replaced."""
        wanted = {
            node: layer for layer in layers for node in self.exported.layer_nodes.get(layer, ())
        }
        nodes: list[onnx.NodeProto] = []
        failed, found = set[str](), set[str]()
        for node in self.graph.node:
            layer = self._lstm_layer(node, layers) if node.op_type == "LSTM" else None
            layer = layer or wanted.get(node.name)
            replacement = None if layer is None else self._replacement(node)
            if layer is not None:
                (found if replacement else failed).add(layer)
            nodes += replacement or [node]
        replace_nodes(self.graph, nodes)
        replace_constants(self.graph, self.values)
        return found - failed

    def _replacement(self, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        if node.op_type == "LSTM":
            return self._lstm(node)
        if node.op_type in ("Gemm", "MatMul"):
            return self._product(node)
        return None

    def _product(self, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        codes = self._codes(node.input[1])
        is_plain = not attribute(node, "transA", 0) and all(
            attribute(node, key, 1.0) == 1.0 for key in ("alpha", "beta")
        )
        if codes is None or not is_plain or codes.axis != output_axis(node):
            return None
        weight = node.input[1]
        if self._is_read_as_float(node):
            weight = self._name(f"{weight}_int8")
        nodes = self._quantize(node.input[0])
        integers, scale, zero = self._inputs[node.input[0]]
        self.values[weight] = codes.codes
        output, source = node.output[0], weight
        if node.op_type == "Gemm" and attribute(node, "transB", 0):
            source = f"{output}_weight"
            nodes.append(helper.make_node("Transpose", [weight], [source], perm=[1, 0]))
        steps, zero_weight = self._name(f"{weight}_scale"), self._name("zero_int8")
        self.values[steps] = codes.scale
        self.values[zero_weight] = np.array(0, np.int8)
        has_bias = len(node.input) > 2 and bool(node.input[2])
        product = f"{output}_product" if has_bias else output
        nodes += [
            helper.make_node(
                "MatMulInteger", [integers, source, zero, zero_weight], [f"{output}_int32"]
            ),
            helper.make_node("Cast", [f"{output}_int32"], [f"{output}_cast"], to=_FLOAT),
            helper.make_node("Mul", [scale, steps], [f"{output}_scale"]),
            helper.make_node("Mul", [f"{output}_cast", f"{output}_scale"], [product]),
        ]
        if has_bias:
            nodes.append(helper.make_node("Add", [product, node.input[2]], [output]))
        nodes[-1].name = node.name
        return nodes

    def _quantize(self, name: str) -> list[onnx.NodeProto]:
        """The node that puts a value on a grid of its own; none if there is one already."""
        if name in self._inputs:
            return []
        terms = (f"{name}_dynamic", f"{name}_dynamic_scale", f"{name}_dynamic_zero")
        self._inputs[name] = terms
        return [helper.make_node("DynamicQuantizeLinear", [name], terms)]

    def _lstm_layer(self, node: onnx.NodeProto, layers: Collection[str]) -> str | None:
        """Which layer an LSTM node is (one of) the directions and depths of."""
        sources = self._sources(node.input[1])
        return next((s.rpartition(".")[0] for s in sources if s.rpartition(".")[0] in layers), None)

    def _lstm(self, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        """DynamicQuantizeLSTM takes (D, X, 4·H) integers, and scales (D, 4·H)."""
        matrices = []
        for index in (1, 2):
            sources = self._sources(node.input[index])
            codes = [self._codes(name) for name in sources]
            if not codes or any(c is None or c.axis != 0 for c in codes):
                return None
            if any(self._readers_of(name) != {node.output[0]} for name in sources):
                return None
            matrices.append((node.input[index], sources, codes))
        nodes, inputs, scales = [], [], []
        for stacked, sources, codes in matrices:
            for name, weight in zip(sources, codes, strict=True):
                assert weight is not None
                self.values[name] = weight.codes
            turned = f"{stacked}_turned"
            nodes.append(helper.make_node("Transpose", [stacked], [turned], perm=[0, 2, 1]))
            steps, zeros = self._name(f"{stacked}_scale"), self._name(f"{stacked}_zero")
            self.values[steps] = np.stack(
                [_in_order(weight.scale) for weight in codes if weight is not None]
            )
            self.values[zeros] = np.zeros(self.values[steps].shape, np.int8)
            inputs.append(turned)
            scales += [steps, zeros]
        others = list(node.input[3:8])
        others += [""] * (5 - len(others))
        replaced = helper.make_node(
            "DynamicQuantizeLSTM",
            [node.input[0], *inputs, *others, *scales],
            list(node.output),
            domain=_DOMAIN,
        )
        replaced.attribute.extend(a for a in node.attribute if a.name != "layout")
        self.has_lstm = True
        return [*nodes, replaced]

    def _name(self, wanted: str) -> str:
        """A name for a value of ours that the model has none of."""
        return unused(wanted, self._taken)

    def _codes(self, name: str) -> QuantizedTensor | None:
        stored = self.exported.quantized.get(name)
        return None if stored is None else to_integer_codes(stored)

    def _is_read_as_float(self, node: onnx.NodeProto) -> bool:
        """Whether anything else than this node's kind of product reads the weight."""
        nodes = self.read_by.get(node.input[1], [])
        return any(other.op_type not in ("Gemm", "MatMul") for other in nodes) or len(nodes) > 1

    def _sources(self, name: str) -> list[str]:
        """Initializers that a rearranged weight of a recurrent node is made of, in order."""
        if name in self.values:
            return [name]
        node = self.made_by.get(name)
        if node is None or node.op_type not in ("Reshape", "Gather", "Concat"):
            return []
        inputs = node.input if node.op_type == "Concat" else node.input[:1]
        return [source for part in inputs for source in self._sources(part)]

    def _readers_of(self, name: str) -> set[str]:
        """First outputs of the recurrent nodes, or others, that a weight ends up in."""
        return set(self._ends(name))

    def _ends(self, name: str) -> Iterator[str]:
        for node in self.read_by.get(name, []):
            if node.op_type in ("Reshape", "Gather", "Concat"):
                yield from self._ends(node.output[0])
            else:
                yield node.output[0]


def _in_order(scale: Array) -> Array:
    """Scales of rows (4·H,) in PyTorch's order of gates -> in ONNX's."""
    gates = scale.reshape(len(GATES["LSTM"]), -1)
    ordered: Array = gates[list(GATES["LSTM"])].reshape(-1)
    return ordered


def dynamic_layers(exported: ExportedGraph, layers: Mapping[str, object]) -> tuple[str, ...]:
    """Those of some layers that have a dynamic kernel: all but convolutions."""
    convolving = {n.name for n in exported.model.graph.node if "Conv" in n.op_type}
    return tuple(
        layer
        for layer in layers
        if not convolving.intersection(exported.layer_nodes.get(layer, ()))
    )
