"""Find the weights of a module's layers in the graph it was exported to.

A weight has a key: the name of its layer where the parameter is called `weight`, else the qualified
name of the parameter (`lstm.weight_ih_l0`).
"""

import hashlib
from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from torch import nn

from autocompress.compress.codes import StoredWeight
from autocompress.onnx_graph.constants import constant_names, fold_constants
from autocompress.onnx_graph.graph import (
    Array,
    constants,
    readers,
    rename_values,
    replace_constants,
)

Content = tuple[tuple[int, ...], bytes]


def parameter_of(key: str, module: nn.Module) -> str:
    """Qualified name of the parameter that a key stands for."""
    is_layer = any(name == key for name, _ in module.named_modules(remove_duplicate=False))
    return key if not is_layer else f"{key}.weight" if key else "weight"


def weight_contents(
    module: nn.Module, weights: Mapping[str, StoredWeight]
) -> dict[str, tuple[str, Array]]:
    """Key -> (name of its parameter, values to look for): stored weights first, then the others.

    Args:
        module: What was exported.
        weights: Key -> what its parameter is stored as.
    """
    found: dict[str, tuple[str, Array]] = {
        key: (parameter_of(key, module), weight.dequantize()) for key, weight in weights.items()
    }
    for name, parameter in module.named_parameters(remove_duplicate=False):
        layer, _, kind = name.rpartition(".")
        if kind == "weight" and parameter.ndim > 1 and layer not in found:
            found[layer] = (name, parameter.detach().cpu().numpy())
    return found


def fold_transposes(model: onnx.ModelProto) -> None:
    """Transpose constant matrices once and for all, in place (the dynamo exporter does not)."""
    outputs = {value.name for value in model.graph.output}
    if outputs.isdisjoint(constant_names(model.graph)):
        fold_constants(model, is_kept=lambda value: value.ndim == 2, operators=("Transpose",))


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


def match_weights(
    graph: onnx.GraphProto, contents: Mapping[str, tuple[str, Array]]
) -> dict[str, tuple[str, ...]]:
    """Initializer -> keys of the weights whose values it holds, as they are or transposed.

    An initializer is found by its values. It is then named after the parameter: after that of the
    module that reads it first, where several parameters are equal (node names must be those that
    `layer_nodes.name_after_modules` gives).

    Args:
        graph: Changed in place: names only.
        contents: From `weight_contents`.
    """
    by_content: dict[Content, list[str]] = {}
    for key, (_, value) in contents.items():
        by_content.setdefault(content_of(value), []).append(key)
    values, read_by = constants(graph), readers(graph)
    matched: dict[str, tuple[str, ...]] = {}
    names: dict[str, str] = {}
    for name, value in values.items():
        keys = next((by_content[c] for c in _layouts(value) if c in by_content), [])
        if not keys:
            continue
        parameters = [contents[key][0] for key in keys]
        scopes = [f"{node.name}." for node in read_by.get(name, [])]
        wanted = sorted(parameters, key=lambda p: p.rpartition(".")[0] + "." not in scopes)
        taken = {*values, *names.values()}
        own = next((p for p in wanted if p == name or p not in taken), name)
        names[name] = own
        matched[own] = tuple(keys)
    rename_values(graph, names)
    return matched


def stored_in_graph(
    graph: onnx.GraphProto,
    matched: Mapping[str, tuple[str, ...]],
    weights: Mapping[str, StoredWeight],
) -> dict[str, StoredWeight]:
    """Initializer -> what it is stored as, in its own layout.

    Args:
        graph: Not changed.
        matched: From `match_weights`.
        weights: Key -> what its parameter is stored as, in PyTorch's layout.
    """
    values = constants(graph)
    found: dict[str, StoredWeight] = {}
    for name, keys in matched.items():
        key = next((key for key in keys if key in weights), None)
        if key is not None:
            is_plain = np.array_equal(values[name], weights[key].dequantize())
            found[name] = weights[key] if is_plain else weights[key].transposed()
    return found


def content_of(value: Array) -> Content:
    """What two equal tensors have in common: shape and a digest of the values."""
    plain = np.ascontiguousarray(np.add(value, 0, dtype=value.dtype))  # + 0 turns -0.0 into 0.0
    return value.shape, hashlib.blake2b(plain.data, digest_size=16).digest()


def _layouts(value: Array) -> Iterator[Content]:
    if value.ndim > 1 and value.dtype == np.float32:
        yield content_of(value)
    if value.ndim == 2 and value.dtype == np.float32:
        yield content_of(value.T)
