"""Small surgery on ONNX graphs: who makes and who reads a value, initializers, names."""

from collections.abc import Container, Iterator, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from autocompress.onnx_graph.messages import messages_in

Array = NDArray[np.generic]


def constants(graph: onnx.GraphProto) -> dict[str, Array]:
    """Initializer name -> its value; changing the arrays does not change the graph."""
    return {item.name: numpy_helper.to_array(item) for item in graph.initializer}


def replace_constants(graph: onnx.GraphProto, values: Mapping[str, Array]) -> None:
    """Make `values` the graph's initializers, all of them, in that order."""
    del graph.initializer[:]
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value, order="C"), name)
        for name, value in values.items()
    )


def replace_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Make `nodes` the graph's nodes; they must be in topological order."""
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)


def unused(name: str, taken: Container[str]) -> str:
    """The name, or with underscores behind it until nothing has it."""
    while name in taken:
        name += "_"
    return name


def readers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    """Value name -> nodes that read it, in order, also from their inner graphs."""
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in dict.fromkeys(names_read(node)):
            found.setdefault(name, []).append(node)
    return found


def makers(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    """Value name -> node that makes it; graph inputs and initializers have none."""
    return {name: node for node in graph.node for name in node.output if name}


def attribute(node: onnx.NodeProto, name: str, default: int | float) -> int | float:
    """A scalar attribute of a node, or `default` if the node does not set it."""
    for item in node.attribute:
        if item.name == name:
            return item.f if item.type == onnx.AttributeProto.FLOAT else item.i
    return default


def drop_unread(graph: onnx.GraphProto) -> None:
    """Drop nodes and initializers whose values nothing reads, in place."""
    needed = {value.name for value in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(names_read(node))
    if len(kept) < len(graph.node):
        replace_nodes(graph, kept[::-1])
    initializers = [item for item in graph.initializer if item.name in needed]
    if len(initializers) < len(graph.initializer):
        kept_items = [onnx.TensorProto.FromString(i.SerializeToString()) for i in initializers]
        del graph.initializer[:]
        graph.initializer.extend(kept_items)


def rename_values(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Rename values everywhere: in nodes and their inner graphs, and what the graph declares."""
    for node in graph.node:
        rename_read(node, names)
        node.output[:] = [names.get(name, name) for name in node.output]
    for item in (*graph.initializer, *graph.input, *graph.output):
        item.name = names.get(item.name, item.name)


def shorten_names(graph: onnx.GraphProto, node_names: Mapping[str, str]) -> None:
    """Give inner values and nodes short names; at small sizes names are a share of the file.

    Args:
        graph: Changed in place. Graph inputs, outputs and parameters keep their names.
        node_names: First output of a node -> the name it must get; other nodes get none.
    """
    fixed = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    taken = fixed | {name for node in graph.node for name in _inner_names(node)}
    made_up = [i.name for i in graph.initializer if "/" in i.name or ":" in i.name]
    fresh = (name for i in range(2**31) if (name := f"t{i}") not in taken)
    for node in graph.node:
        node.name = node_names.get(node.output[0], "")
    inner = [name for node in graph.node for name in node.output if name and name not in taken]
    rename_values(graph, {name: next(fresh) for name in (*made_up, *inner)})


def names_read(node: onnx.NodeProto) -> Iterator[str]:
    """Names that a node reads, and all that its inner graphs read or make."""
    yield from filter(None, node.input)
    yield from _inner_names(node)


def _inner_names(node: onnx.NodeProto) -> Iterator[str]:
    for part in messages_in(node):
        if isinstance(part, onnx.GraphProto):
            for inner in part.node:
                yield from filter(None, (*inner.input, *inner.output))
            yield from (value.name for value in part.output)


def rename_read(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Let a node, its inner graphs included, read other values."""
    for part in messages_in(node):
        if isinstance(part, onnx.NodeProto):
            part.input[:] = [names.get(name, name) for name in part.input]
        elif isinstance(part, onnx.GraphProto):
            for value in part.output:
                value.name = names.get(value.name, value.name)
