"""What a graph's speed depends on: its structure, without names and weight values."""

import hashlib
from collections.abc import Mapping

import onnx
from onnx import numpy_helper


def structure_digest(model: onnx.ModelProto) -> str:
    """sha256 in hex over operators, attributes, topology, shapes and types: not names, not weights.

    Two graphs with equal digests run the same kernels on the same shapes, so that one's timing
    holds for the other. Values of 64-bit integers (axes, shapes, paddings) are structure and count;
    whether equal constants share one initializer does not, since that depends on values.
    """
    digest = hashlib.sha256()
    for opset in sorted((o.domain, o.version) for o in model.opset_import):
        digest.update(repr(opset).encode())
    digest.update(repr(_graph_structure(model.graph, {})).encode())
    return digest.hexdigest()


def _graph_structure(graph: onnx.GraphProto, outer: Mapping[str, object]) -> tuple[object, ...]:
    """Nested tuples that describe a graph; values are named by where they come from."""
    known: dict[str, object] = {name: ("outer", what) for name, what in outer.items()}
    known[""] = None
    for item in graph.initializer:
        is_structure = item.data_type == onnx.TensorProto.INT64
        value = numpy_helper.to_array(item).tolist() if is_structure else None
        known[item.name] = (item.data_type, tuple(item.dims), value)
    inputs = []
    for i, value_info in enumerate(graph.input):
        known[value_info.name] = ("input", i)
        inputs.append(_type(value_info))
    nodes = []
    for i, node in enumerate(graph.node):
        attributes = tuple(
            (a.name, _attribute(a, known)) for a in sorted(node.attribute, key=lambda a: a.name)
        )
        reads = tuple(known[name] for name in node.input)
        nodes.append((node.domain, node.op_type, attributes, reads, len(node.output)))
        known.update({name: ("node", i, j) for j, name in enumerate(node.output) if name})
    outputs = tuple((known[v.name], _type(v)) for v in graph.output)
    return tuple(inputs), tuple(nodes), outputs


def _attribute(item: onnx.AttributeProto, known: Mapping[str, object]) -> object:
    if item.type == onnx.AttributeProto.GRAPH:
        return _graph_structure(item.g, known)
    return item.SerializeToString(deterministic=True)


def _type(value: onnx.ValueInfoProto) -> tuple[object, ...]:
    tensor = value.type.tensor_type
    dims = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim)
    return tensor.elem_type, dims
