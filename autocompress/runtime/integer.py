"""Let chosen layers of an exported graph run in integers, with exactly our codes and scales.

Every value that an integer layer reads or writes gets a QuantizeLinear/DequantizeLinear pair (QDQ);
the runtime turns a layer between two pairs into one integer kernel. Weights enter as int8 codes
behind a DequantizeLinear. The pairs are inserted here and not by the runtime's own quantizer: it
re-derives codes from float weights, quantizes layers it was told to leave alone, and takes seconds.
"""

import dataclasses
from collections.abc import Callable, Container, Mapping, Sequence

import numpy as np
import onnx
from onnx import helper

from autocompress.compress.codes import ActivationRange
from autocompress.onnx_graph.exported_graph import ExportedGraph
from autocompress.onnx_graph.graph import (
    Array,
    constants,
    drop_unread,
    makers,
    readers,
    rename_read,
    replace_constants,
    replace_nodes,
)
from autocompress.runtime.base import Arrays
from autocompress.runtime.integer_grids import choose_grids, is_saturated
from autocompress.runtime.integer_regions import (
    INTEGER_LAYERS,
    MOVING,
    IntegerRegions,
    find_regions,
    is_clamp,
)

Named = Callable[[str, str], str]

_PARTS = ("bias", "dq", "float", "int8", "q", "raw", "scale", "zero")
_REQUANTIZED = ("Conv", "ConvTranspose", "Gemm")


def to_integer(
    exported: ExportedGraph,
    activations: Mapping[str, ActivationRange],
    calibration: Sequence[Arrays],
) -> ExportedGraph:
    """Rewrite a float graph so that the layers in `activations` run in integer kernels.

    Pooling, additions and the like run in integers where they lie between such layers; values
    without a given grid (the outputs of additions, say) get one from the extremes they take on
    `calibration`. Data movement runs on the integers themselves. A ReLU whose bound is the end of
    the grid is left out: saturation does its work. All other layers stay float.

    Args:
        exported: From `export_onnx`; not changed.
        activations: Layer name -> grid of the layer's input. Layers whose weight is not exactly
            int8 codes times a scale per channel and kinds without an integer kernel stay float.
            Where one value feeds several layers, the grid that spans all of theirs is used.
        calibration: Batches, at least one: one array per graph input.

    Returns:
        A graph whose integer layers hold their codes as int8 initializers, under the weights' old
        names unless float nodes read these as well; `quantized` keeps the weights that are still
        float, and `not_integer` names the layers that had to stay so.
    """
    if not activations:
        return exported
    model = onnx.ModelProto.FromString(exported.model.SerializeToString())
    regions = find_regions(model.graph, exported, activations)
    outputs = {node.name: node.output[0] for node in model.graph.node}
    not_integer = tuple(
        layer
        for layer in sorted(activations)
        if not exported.layer_nodes.get(layer)
        or any(outputs[node] not in regions.layers for node in exported.layer_nodes[layer])
    )
    if not regions.layers:
        return dataclasses.replace(exported, not_integer=not_integer)
    grids = choose_grids(model, regions, calibration)
    named = _namer(model.graph)
    _insert_pairs(model.graph, regions, grids, named)
    _insert_codes(model.graph, regions, grids, named)
    drop_unread(model.graph)
    kept = {i.name for i in model.graph.initializer if i.data_type == onnx.TensorProto.FLOAT}
    quantized = {name: t for name, t in exported.quantized.items() if name in kept}
    return dataclasses.replace(exported, model=model, quantized=quantized, not_integer=not_integer)


def _namer(graph: onnx.GraphProto) -> Named:
    """Names what belongs to a value, such that nothing in the graph is called so already."""
    taken = {item.name for item in (*graph.input, *graph.initializer)} | set(makers(graph))
    gap = "_"
    while any(_is_part(name, gap, taken) for name in taken):
        gap += "_"
    return lambda name, part: f"{name}{gap}{part}"


def _is_part(name: str, gap: str, taken: Container[str]) -> bool:
    """Whether a name could be made for a part of one of `taken`, or of a part of it."""
    whole, _, part = name.rpartition(gap)
    is_zero_point = whole == "zero" and part.isdecimal()
    is_part = part in _PARTS and (whole in taken or _is_part(whole, gap, taken))
    return is_zero_point or is_part


def _insert_pairs(
    graph: onnx.GraphProto,
    regions: IntegerRegions,
    grids: Mapping[str, ActivationRange],
    named: Named,
) -> None:
    values = constants(graph)
    outputs = {value.name for value in graph.output}
    inputs = [value.name for value in graph.input]
    root_of = regions.root_of
    read_as = {name: name if name in outputs else named(name, "dq") for name in root_of}
    written = {name: named(name, "raw") for name in root_of if name in outputs}
    guarded = {
        node.output[0]
        for node in graph.node
        if node.op_type in _REQUANTIZED and node.output[0] not in regions.layers
    }
    nodes: list[onnx.NodeProto] = []

    def add_pair(name: str, source: str) -> None:
        grid = grids[root_of[name]]
        terms = [named(root_of[name], "scale"), named("zero", str(grid.zero_point))]
        values[terms[0]] = np.array(grid.scale, np.float32)
        values[terms[1]] = np.array(grid.zero_point, np.uint8)  # Gemm has no kernel without it
        if source in guarded:
            # ONNX Runtime quantizes what it finds between two pairs, float layers too. A maximum
            # of one value changes nothing and breaks the pattern.
            nodes.append(helper.make_node("Max", [source], [named(name, "float")]))
            source = named(name, "float")
        codes = named(name, "q")
        if root_of[name] == name:
            nodes.append(helper.make_node("QuantizeLinear", [source, *terms], [codes]))
        nodes.append(helper.make_node("DequantizeLinear", [codes, *terms], [read_as[name]]))

    for name in inputs:
        if name in root_of:
            add_pair(name, name)
    for node in graph.node:
        name, source = node.output[0], node.input[0] if node.input else ""
        is_moving = node.op_type in MOVING and name in regions.nodes
        made = [output for output in node.output if output in root_of]
        if is_moving:
            grid = grids[root_of[name]]
            node.input[0], node.output[0] = named(source, "q"), named(name, "q")
            if node.op_type == "Pad" and grid.zero_point:
                zero = named("zero", str(grid.zero_point))
                node.input[:] = [*node.input[:2], zero, *node.input[3:]]
        elif node.op_type == "Shape" and source in root_of:
            node.input[0] = named(source, "q")
        rename_read(node, read_as)
        if made and not is_moving:
            if is_clamp(node, values) and is_saturated(node, values, grids[name]):
                add_pair(name, node.input[0])
                continue
            node.output[:] = [written.get(output, output) for output in node.output]
        nodes.append(node)
        for output in made:
            add_pair(output, written.get(output, output))
    replace_nodes(graph, nodes)
    replace_constants(graph, values)


def _insert_codes(
    graph: onnx.GraphProto,
    regions: IntegerRegions,
    grids: Mapping[str, ActivationRange],
    named: Named,
) -> None:
    """Replace float weights by int8 codes, and the biases of Gemm by int32.

    Of a convolution the runtime quantizes the bias itself, the same way; as float it is one tensor
    instead of two, and packs into two bytes a value. A weight that float nodes read as well (a tied
    embedding) stays; its codes are a second tensor, which a packed file stores once.
    """
    values = constants(graph)
    read_as_float = {
        name
        for name, nodes in readers(graph).items()
        if not all(_is_integer_layer(node, regions, named) for node in nodes)
    }
    nodes: list[onnx.NodeProto] = []
    dequantized: dict[str, str] = {}

    def add_dequantize(name: str, scale: Array, axis: int) -> str:
        terms, output = [name, named(name, "scale")], named(name, "dq")
        values[terms[1]] = scale
        nodes.append(helper.make_node("DequantizeLinear", terms, [output], axis=axis))
        return output

    for node in graph.node:
        if _is_integer_layer(node, regions, named):
            weight = node.input[1]
            codes = regions.weights[weight]
            if weight not in dequantized:
                name = named(weight, "int8") if weight in read_as_float else weight
                values[name] = codes.codes
                dequantized[weight] = add_dequantize(name, codes.scale, codes.axis)
                if node.op_type == "Gemm":  # the one kernel that wants to be told
                    values[named(name, "zero")] = np.zeros(len(codes.scale), np.int8)
                    nodes[-1].input.append(named(name, "zero"))
            node.input[1] = dequantized[weight]
            if node.op_type == "Gemm" and len(node.input) > 2:
                root = regions.root_of[node.input[0].removesuffix(named("", "dq"))]
                scale = (codes.scale * np.float32(grids[root].scale)).astype(np.float32)
                bias = np.rint(values[node.input[2]].astype(np.float64) / scale)
                limits = np.iinfo(np.int32)
                name = named(node.output[0].removesuffix(named("", "raw")), "bias")
                values[name] = np.clip(bias, limits.min, limits.max).astype(np.int32)
                node.input[2] = add_dequantize(name, scale, 0)
        nodes.append(node)
    replace_nodes(graph, nodes)
    replace_constants(graph, values)


def _is_integer_layer(node: onnx.NodeProto, regions: IntegerRegions, named: Named) -> bool:
    is_chosen = node.output[0].removesuffix(named("", "raw")) in regions.layers
    return is_chosen and node.op_type in INTEGER_LAYERS
