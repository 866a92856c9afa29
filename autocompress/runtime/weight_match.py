"""Find the weights of a module's layers in the graph it was exported to."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import onnx
from torch import nn

from autocompress.compress.codes import QuantizedTensor
from autocompress.runtime.graph import (
    Array,
    constants,
    readers,
    rename_values,
    replace_constants,
)


def layer_weights(module: nn.Module, weights: Mapping[str, QuantizedTensor]) -> dict[str, Array]:
    """Layer name -> the weight to look for in the graph."""
    found: dict[str, Array] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        layer, _, kind = name.rpartition(".")
        if kind == "weight" and parameter.ndim > 1:
            found[layer] = parameter.detach().cpu().numpy()
    return {**found, **{layer: tensor.dequantize() for layer, tensor in weights.items()}}


def matmul_to_gemm(model: onnx.ModelProto) -> None:
    """Turn MatMul of a matrix by a constant into Gemm, so that weights lie as in PyTorch."""
    graph = model.graph
    shapes = onnx.shape_inference.infer_shapes(model).graph
    ranks = {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*shapes.value_info, *shapes.input, *shapes.output)
        if value.type.tensor_type.HasField("shape")
    }
    values, read_by = constants(graph), readers(graph)
    for name in [n for n, value in values.items() if value.ndim == 2]:
        nodes = read_by.get(name, [])
        if all(n.op_type == "MatMul" and n.input[1] == name for n in nodes) and all(
            ranks.get(n.input[0]) == 2 for n in nodes
        ):
            values[name] = values[name].T
            for node in nodes:
                node.op_type = "Gemm"
                node.attribute.append(onnx.helper.make_attribute("transB", 1))
    replace_constants(graph, values)


def match_weights(graph: onnx.GraphProto, weights: Mapping[str, Array]) -> dict[str, str]:
    """Find each layer's weight by name, else by content; it is then named after the layer."""
    values = constants(graph)
    by_content = {_content(value): name for name, value in values.items() if value.ndim > 1}
    matched: dict[str, str] = {}
    names: dict[str, str] = {}
    for layer, weight in weights.items():
        own = f"{layer}.weight" if layer else "weight"
        if own in values and np.array_equal(values[own], weight):
            matched[layer] = own
            continue
        found = by_content.get(_content(weight)) or by_content.get(_content(weight.T))
        if found is not None and (weight.ndim == 2 or values[found].shape == weight.shape):
            if found not in names and own not in values:
                names[found] = own
            matched[layer] = names.get(found, found)
    rename_values(graph, names)
    return matched


def _content(value: Array) -> tuple[tuple[int, ...], bytes]:
    return value.shape, np.add(value, 0, dtype=value.dtype).tobytes()  # + 0 turns -0.0 into 0.0


def in_graph_layout(
    graph: onnx.GraphProto, matched: Mapping[str, str], weights: Mapping[str, QuantizedTensor]
) -> dict[str, QuantizedTensor]:
    """Initializer name -> codes, transposed where the exporter transposed the weight."""
    values = constants(graph)
    found: dict[str, QuantizedTensor] = {}
    for layer, tensor in weights.items():
        if layer not in matched:
            continue
        if not np.array_equal(values[matched[layer]], tensor.dequantize()):
            tensor = dataclasses.replace(
                tensor, codes=np.ascontiguousarray(tensor.codes.T), axis=1 - tensor.axis
            )
        found[matched[layer]] = tensor
    return found
