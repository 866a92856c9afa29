"""ONNX graphs from elsewhere: find their weights and store them as integers, after training."""

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import torch
from onnx import helper

from autocompress.compress.codes import QuantizedTensor
from autocompress.compress.quantizers.registry import find_quantizer, parse_granularity
from autocompress.errors import InputError, first_line
from autocompress.onnx_graph.constants import constants_to_initializers
from autocompress.onnx_graph.exported_graph import ExportedGraph
from autocompress.onnx_graph.graph import (
    Array,
    attribute,
    constants,
    replace_constants,
    replace_nodes,
    unused,
)
from autocompress.onnx_graph.messages import messages_in
from autocompress.runtime.half_precision import halve_weight

_LOWEST_OPSET: Final = 13  # the first with a scale for each channel
_LOWEST_IR: Final = 4  # the first whose initializers need not be inputs
_LEAST_ITEMS: Final = 256  # of smaller weights scales and operators are as large as what is saved
_CUTTING: Final = ("Slice", "Concat", "Unsqueeze", "Split")
_RECURRENT: Final = ("LSTM", "GRU", "RNN")


def read_onnx(path: Path) -> onnx.ModelProto:
    """Read an ONNX file as a graph that can hold integers with a scale for each channel.

    Raises:
        InputError: If it cannot be read, is invalid, or is older and cannot be converted.
    """
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf, the checker and the file system share no base
        raise InputError(f"{path} is no ONNX model: {first_line(error)}.") from error
    _free_initializers(model)
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset >= _LOWEST_OPSET:
        return model
    try:
        return onnx.version_converter.convert_version(model, _LOWEST_OPSET)
    except Exception as error:  # whatever an operator's converter raises
        raise InputError(
            f"{path} has opset {opset}, must have {_LOWEST_OPSET} at least, and cannot be "
            f"converted: {first_line(error)}.",
            "Export the model again with a newer opset.",
        ) from error


def _free_initializers(model: onnx.ModelProto) -> None:
    """Make initializers no inputs, in place: until IR 3 they had to be, and could be overridden."""
    names = {item.name for item in model.graph.initializer}
    for value in [value for value in model.graph.input if value.name in names]:
        model.graph.input.remove(value)
    model.ir_version = max(model.ir_version, _LOWEST_IR)


def quantize_weights(
    model: onnx.ModelProto, bits: float, leave: Collection[str] = ()
) -> ExportedGraph:
    """Round the weights of a graph to the nearest integers times a scale per output channel.

    Args:
        model: Not changed.
        bits: 2-8.
        leave: Initializers that stay float.

    Returns:
        The graph with weights that are exactly integers times scales. Its layers are the
        convolutions and matrix products of the main graph, called after their weights; weights that
        recurrent layers, embeddings and branches read are stored alike and computed with as floats.

    Raises:
        InputError: If it has no weight to quantize.
    """
    copied = onnx.ModelProto.FromString(model.SerializeToString())
    graph = copied.graph
    constants_to_initializers(graph)
    values = constants(graph)
    axes = {name: axis for name, axis in weight_axes(graph, values).items() if name not in leave}
    if not axes:
        raise InputError("The model has no weight that can be quantized.")
    quantized = {name: _rounded(values[name], axis, bits) for name, axis in axes.items()}
    values.update({name: stored.dequantize() for name, stored in quantized.items()})
    replace_constants(graph, values)
    layer_nodes: dict[str, tuple[str, ...]] = {}
    for node in graph.node:
        node.name = ""
        weight = node.input[1] if len(node.input) > 1 else ""
        if node.op_type in ("Conv", "Gemm", "MatMul") and weight in quantized:
            earlier = layer_nodes.get(weight, ())
            node.name = f"{weight}#{len(earlier)}" if earlier else weight
            layer_nodes[weight] = (*earlier, node.name)
    return ExportedGraph(model=copied, quantized=quantized, layer_nodes=layer_nodes)


def weight_axes(graph: onnx.GraphProto, values: Mapping[str, Array]) -> dict[str, int]:
    """Initializer that is only read as a weight, in branches too -> axis of its output channels."""
    found: dict[str, set[int | None]] = {}
    reads = list(_reads(graph))
    read_by: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
    for node, index, name in reads:
        read_by.setdefault(name, []).append((node, index))
    for node, index, name in reads:
        if name in values:
            axes = _axes(node, index, values[name].ndim, read_by)
            found.setdefault(name, set()).update(axes)
    return {
        name: axis
        for name, seen in found.items()
        if len(seen) == 1
        and (axis := next(iter(seen))) is not None
        and values[name].dtype == np.float32
        and values[name].size >= _LEAST_ITEMS
        and np.isfinite(values[name]).all()
    }


def with_integer_weights(exported: ExportedGraph) -> onnx.ModelProto:
    """A graph whose file is small: weights are int8 tensors, turned into floats where it starts.

    Every runtime that knows DequantizeLinear runs it. Nothing asks for integer arithmetic, but
    ONNX Runtime makes matrix products MatMulNBits, which round their inputs to 8 bits on the fly.
    """
    model = onnx.ModelProto.FromString(exported.model.SerializeToString())
    values = constants(model.graph)
    nodes: list[onnx.NodeProto] = []
    for name, stored in exported.quantized.items():
        assert isinstance(stored, QuantizedTensor)
        terms = [unused(f"{name}_{part}", values) for part in ("int8", "scale")]
        del values[name]
        values[terms[0]], values[terms[1]] = stored.codes, stored.scale
        nodes.append(helper.make_node("DequantizeLinear", terms, [name], axis=stored.axis))
    replace_nodes(model.graph, [*nodes, *model.graph.node])
    replace_constants(model.graph, values)
    return model


def _reads(graph: onnx.GraphProto) -> Iterator[tuple[onnx.NodeProto, int, str]]:
    """(node, index of its input, what it reads) for all nodes, those of branches included."""
    for part in messages_in(graph):
        if isinstance(part, onnx.NodeProto):
            yield from ((part, index, name) for index, name in enumerate(part.input) if name)
        elif isinstance(part, onnx.GraphProto):
            for value in part.output:
                yield helper.make_node("Output", [value.name], []), 0, value.name


def _axes(
    node: onnx.NodeProto,
    index: int,
    n_dims: int,
    read_by: Mapping[str, list[tuple[onnx.NodeProto, int]]],
) -> set[int | None]:
    """Where output channels run along a weight, seen from one that reads it.

    Exporters cut the matrices of recurrent layers into gates and put them together again: rows stay
    rows until the layer is reached.
    """
    if node.op_type not in _CUTTING or (index > 0 and node.op_type != "Concat") or n_dims != 2:
        return {_axis(node, index, n_dims)}
    ends = set[bool]()
    waiting = [node]
    while waiting:
        for after, at in read_by.get(waiting.pop().output[0], []):
            if after.op_type in _CUTTING:
                waiting.append(after)
            else:
                ends.add(after.op_type in _RECURRENT and at in (1, 2))
    return {0} if ends == {True} else {None}


def _axis(node: onnx.NodeProto, index: int, n_dims: int) -> int | None:
    """Dimension that output channels run along, where an input is a weight."""
    if node.op_type == "Gather" and index == 0 and n_dims == 2:
        return 0 if attribute(node, "axis", 0) == 0 else None
    if node.op_type in _RECURRENT and index in (1, 2):
        return 1
    if index != 1 or n_dims < 2:
        return None
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1 if attribute(node, "group", 1) == 1 else None
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    return 1 if node.op_type == "MatMul" and n_dims == 2 else None


def _rounded(weight: Array, axis: int, bits: float) -> QuantizedTensor:
    tensor = torch.nn.Parameter(torch.from_numpy(np.array(weight)))
    make = find_quantizer("uniform").make
    stored = halve_weight(
        make(tensor, bits, parse_granularity("channel"), axis, None).freeze(tensor)
    )
    assert isinstance(stored, QuantizedTensor)
    return dataclasses.replace(stored, axis=axis)
